"""One-line changes that a bug could be: what a file's syntax tree offers to be changed, and how each mutant reads."""

from __future__ import annotations

import ast
import builtins
import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NOTHING = "__import__('contextlib').nullcontext()"
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.BitXor: ast.BitOr,
}  # fmt: skip
FIRST_ARGUMENT = {"abs", "int", "max", "min", "reversed", "round", "sorted", "tuple", "list", "float", "bool"}
"""Builtins that may be left out, so that their first argument stands alone."""

UNNOTICED_ARGUMENTS = ("device", "strict", "stacklevel")
"""Keyword arguments that change nothing on one device, or where the code is right."""


@dataclass(frozen=True)
class Mutant:
    """``before``, from byte ``start`` to ``end`` of the file ``path``, becomes ``after``; ``number`` counts equal ones in
    ``place``."""

    path: str
    place: str
    line: int
    start: int
    end: int
    before: str
    after: str
    number: int

    @property
    def name(self) -> str:
        """Return what it is known by, whatever else changes in its file."""
        again = f" ({self.number + 1})" if self.number else ""
        return f"{self.path} {self.place}: {self.before} → {self.after}{again}"

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]

    def rank(self, seed: int) -> str:
        """Return what a sample's order is made of: a mutant keeps its place, whatever others a file gains or loses."""
        return hashlib.sha256(f"{seed} {self.name}".encode()).hexdigest()


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Return all mutants of a file; each can be compiled."""
    tree = ast.parse(source)
    starts = [0]
    for row in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    counts: Counter[tuple[str, str, str]] = Counter()
    found = []
    for place, node, after in _Offers(tree).found:
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = " ".join(source[start:end].decode().split())
        if before.strip("()") == after.strip("()"):
            continue
        mutant = Mutant(path, place, node.lineno, start, end, before, after, counts[place, before, after])
        if _compiles(mutant.applied(source)):
            counts[place, before, after] += 1
            found.append(mutant)
    return found


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


Placed = ast.expr | ast.stmt


class _Offers(ast.NodeVisitor):
    """Collects (place, node, new text).

    Left out are annotations, docstrings, imports, the words of errors and of the log, and what only another device shows.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[str, Placed, str]] = []
        self._place: list[str] = []
        self._modules = {
            (name.asname or name.name).partition(".")[0]
            for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for name in node.names
        }  # fmt: skip
        self.visit(tree)

    def offer(self, node: Placed, new: ast.AST | str) -> None:
        if "getLogger" in ast.unparse(node):
            return
        text = new if isinstance(new, str) else ast.unparse(ast.fix_missing_locations(new))
        bare = isinstance(node, ast.stmt) or isinstance(new, str | ast.Constant | ast.Name | ast.Attribute | ast.Call)
        self.found.append((".".join(self._place) or "module", node, text if bare else f"({text})"))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(default)
        self._definition(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._definition(node)

    def _definition(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).startswith("torch."):
                self.offer(decorator, "(lambda function: function)")
        self._place.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self._place.pop()

    def generic_visit(self, node: ast.AST) -> None:
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
            super().generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Call):
            return
        called = ast.unparse(node.value.func)
        if called.startswith("logger."):
            if called == "logger.warning":
                self.offer(node, "pass")
            return
        self.offer(node, "pass")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.offer(node, "pass")

    def visit_Delete(self, node: ast.Delete) -> None:
        self.offer(node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self.offer(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self.offer(node, "break")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            if not isinstance(node.value, ast.Constant):
                self.offer(node, "return None")
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        targets = {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        is_kept = all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
        if is_kept or targets & {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)}:
            self.offer(node, "pass")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.offer(node, "pass")
        if type(node.op) in ARITHMETIC:
            self.offer(node, _with(node, lambda new: setattr(new, "op", ARITHMETIC[type(node.op)]())))
        self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        self._condition(node)

    def visit_While(self, node: ast.While) -> None:
        self._condition(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node)

    def _condition(self, node: ast.If | ast.While | ast.IfExp) -> None:
        if not isinstance(node.test, ast.Compare) and not _is_not(node.test):
            self.offer(node.test, ast.UnaryOp(ast.Not(), node.test))
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self.offer(condition, "True")
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            if item.optional_vars is None:
                self.offer(item.context_expr, NOTHING)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                self.offer(node, _with(node, lambda new, at=index, by=other: new.ops.__setitem__(at, by())))
        for value in [node.left, *node.comparators]:
            self._text(value)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self.offer(node, _with(node, lambda new: setattr(new, "op", other)))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.MatMult):
            self.offer(node, ast.BinOp(node.right, node.op, node.left))
        elif type(node.op) in ARITHMETIC and not any(map(_is_text, (node.left, node.right))):
            self.offer(node, _with(node, lambda new: setattr(new, "op", ARITHMETIC[type(node.op)]())))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self.offer(node, node.operand)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        match node.value:
            case bool():
                self.offer(node, str(not node.value))
            case int():
                self.offer(node, str(node.value + 1))
            case float():
                self.offer(node, repr(node.value * 2 or 1.0))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._text(node.slice)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key in node.keys:
            if key is not None:
                self._text(key)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        for index, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, *UNNOTICED_ARGUMENTS):
                self.offer(node, _with(node, lambda new, at=index: new.keywords.pop(at)))
        function = node.func
        if isinstance(function, ast.Attribute):
            owner = function.value
            is_module = isinstance(owner, ast.Name) and (owner.id in self._modules or owner.id == "cls")
            if is_module and node.args and not isinstance(node.args[0], ast.Starred):
                self.offer(node, node.args[0])
            elif not is_module and ast.unparse(owner) not in ("self", "super()") and not _moves(node):
                self.offer(node, owner)
        elif isinstance(function, ast.Name) and hasattr(builtins, function.id) and node.args:
            if function.id in ("min", "max"):
                other = "max" if function.id == "min" else "min"
                self.offer(node, _with(node, lambda new: setattr(new, "func", ast.Name(other))))
            if function.id in FIRST_ARGUMENT and not isinstance(node.args[0], ast.Starred):
                self.offer(node, node.args[0])
        for part in [function, *node.args, *(one.value for one in node.keywords if one.arg not in UNNOTICED_ARGUMENTS)]:
            self.visit(part)

    def _text(self, node: ast.expr) -> None:
        """Offer another text where a text is compared or is a key."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
            self.offer(node, repr(f"other {node.value}"))


def _with(node: ast.AST, change: Callable[..., object]) -> ast.AST:
    new = copy.deepcopy(node)
    change(new)
    return new


def _moves(node: ast.Call) -> bool:
    """Return whether a call only takes a tensor to another device."""
    called = ast.unparse(node)
    return called.endswith((".cpu()", "device)"))


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def sample_of(by_path: dict[str, list[Mutant]], count: int, seed: int) -> Iterator[Mutant]:
    """Yield ``count`` mutants, of each file in proportion to how many it has (largest remainders)."""
    total = sum(map(len, by_path.values()))
    shares = {path: min(count, total) * len(mutants) / total for path, mutants in by_path.items()}
    taken = {path: int(share) for path, share in shares.items()}
    left = min(count, total) - sum(taken.values())
    for path in sorted(shares, key=lambda path: (taken[path] - shares[path], path))[:left]:
        taken[path] += 1
    for path, mutants in by_path.items():
        yield from sorted(mutants, key=lambda mutant: mutant.rank(seed))[: taken[path]]
