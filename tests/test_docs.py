"""The documentation: it builds as a site without a network, its links lead somewhere, and what it quotes is so."""

import html.parser
import re
import subprocess
import sys

import nbformat
import pytest
from composed import REPOSITORY

from winnow.commands.cli import _parser

DOCS = REPOSITORY / "docs"
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
FETCHING = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src")}


class Links(html.parser.HTMLParser):
    """What a page links to, what it fetches, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.fetched, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.targets.append(values["href"])
        is_canonical = tag == "link" and values.get("rel") in ("canonical", "next", "prev")
        self.fetched += [values[key] for name, key in FETCHING if tag == name and values.get(key) and not is_canonical]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the pages of the site, built as `make docs` builds it: path below the site's folder → what stands there."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder, {page.relative_to(folder): Links(page.read_text()) for page in folder.rglob("*.html")}


@pytest.mark.slow
@pytest.mark.promise
def test_every_link_of_the_site_leads_somewhere(site):
    folder, pages = site
    assert len(pages) > 35
    broken = []
    for page, links in pages.items():
        for target in [*links.targets, *links.fetched]:
            place, _, anchor = target.partition("#")
            if ":" in place or place.startswith("//") or page.name == "404.html":
                continue
            goal = (folder / page.parent / place).resolve() if place else (folder / page)
            found = goal / "index.html" if goal.is_dir() else goal
            other = pages.get(found.relative_to(folder.resolve())) if found.is_relative_to(folder.resolve()) else None
            if not found.exists() or (anchor and other is not None and anchor not in other.anchors):
                broken.append(f"{page}: {target}")
    assert broken == []


@pytest.mark.slow
@pytest.mark.promise
def test_the_site_fetches_nothing(site):
    folder, pages = site
    foreign = {target for links in pages.values() for target in links.fetched if re.match(r"(https?:)?//", target)}
    assert foreign == set()
    styles = "".join(path.read_text() for path in folder.rglob("*.css"))
    assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", styles)


@pytest.mark.slow
@pytest.mark.promise
def test_the_settings_page_has_every_group_with_its_types_and_comments(site):
    folder, _ = site
    page = (folder / "settings.html").read_text()
    groups = ("training.batch_size", "data=coco", "model=map_qformer", "tracking=mlflow", "hydra.sweeper.n_trials")
    comments = ("probability of a random crop before resizing", "number &gt; 0 or null")
    assert [words for words in (*groups, *comments) if words not in page] == []
    assert page.count("<tr>") > 300


def test_links_between_files_of_the_repository_lead_somewhere():
    """As one reads them on a code host: README, CONTRIBUTING, docs/ and benchmarks/."""
    files = [*REPOSITORY.glob("*.md"), *DOCS.glob("*.md"), REPOSITORY / "benchmarks" / "README.md"]
    broken = [
        f"{file.name}: {target}"
        for file in files
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)", file.read_text())
        if not (file.parent / target).exists()
    ]
    assert broken == []


def test_the_readmes_first_screen_shows_what_it_claims():
    first = (REPOSITORY / "README.md").read_text().split("\n## ")[0]
    (picture,) = re.findall(r"!\[[^\]]+\]\((\S+)\)", first)
    assert 10_000 < (REPOSITORY / picture).stat().st_size < 150_000
    claims = re.findall(r"^\* \*\*.*?(?=^\* |\n\n)", first, flags=re.MULTILINE | re.DOTALL)
    assert len(claims) == 5
    assert [claim for claim in claims if not re.search(r"\(tests/\S+\.py\)", claim)] == []


def test_pages_that_the_code_names_exist():
    sources = [
        *(REPOSITORY / "src").rglob("*.py"),
        *(REPOSITORY / "conf").rglob("*.yaml"),
        *(REPOSITORY / "sweeps").glob("*"),
    ]
    named = {name for path in sources for name in re.findall(r"docs/(\w+\.md)", path.read_text())}
    assert {"data.md", "your_family.md"} <= named
    assert [name for name in named if not (DOCS / name).exists()] == []


def commands_of(text):
    """Return the lines of shell blocks that begin with `winnow`, without comments."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        line.split(" #")[0].split("&&")[0].strip() for line in lines if line.startswith("winnow ") and "{" not in line
    ]


def test_commands_of_the_pages_have_the_subcommands_and_options_that_they_use():
    (subcommands,) = (action.choices for action in _parser()._actions if isinstance(action.choices, dict))
    pages = [REPOSITORY / "README.md", *DOCS.glob("*.md")]
    commands = [command for page in pages for command in commands_of(page.read_text())]
    assert len(commands) > 40
    wrong = []
    for command in commands:
        name, *arguments = command.split()[1:]
        nested = (
            [action for action in subcommands[name]._actions if isinstance(action.choices, dict)]
            if name in subcommands
            else []
        )
        parser = nested[0].choices.get(arguments[0]) if nested else subcommands.get(name)
        options = (
            {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
            if name != "train"
            else set()
        )
        if parser is None or not options <= set(parser._option_string_actions):
            wrong.append(command)
    assert wrong == []


def test_messages_that_troubleshooting_quotes_are_winnows():
    sources = "".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    joined = re.sub(r"\"\s*\n\s*f?\"", "", sources)
    quoted = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    assert len(quoted) > 25
    assert [message for message in quoted if message not in joined] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_holds_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(path):
    """It is run as `make docs` runs it, whose page then has the outputs."""
    made = f"build/notebooks/{path.name}"
    (REPOSITORY / made).unlink(missing_ok=True)
    run = subprocess.run(["make", made], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    cells = nbformat.read(REPOSITORY / made, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    printed = "".join(output.get("text", "") for output in outputs)
    assert "\x1b" not in printed, "a progress bar was drawn into the notebook"
