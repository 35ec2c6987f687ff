import torch

from winnow.families.pairs.models.sampling import SeededSampler

LABELS = torch.cat([torch.ones(30), torch.zeros(200), -torch.ones(10)])


def drawn(seeds, labels=LABELS, size=16):
    sampler = SeededSampler(size, 0.5)
    sampler.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    masks = sampler([labels] * len(seeds))
    return [[mask.nonzero().flatten().tolist() for mask in part] for part in masks], sampler.num_drawn


def test_it_draws_the_number_wanted_of_which_half_positive_and_none_of_those_left_out():
    ((positive,), (negative,)), count = drawn([1])
    assert (len(positive), len(negative), count) == (8, 8, 16)
    assert max(positive) < 30 <= min(negative)
    assert max(negative) < 230


def test_too_few_positive_ones_are_made_up_for_by_negative_ones_and_too_few_at_all_are_counted():
    ((positive,), (negative,)), count = drawn([1], torch.tensor([1.0, 1, *[0] * 100]))
    assert (len(positive), len(negative), count) == (2, 14, 16)
    assert drawn([1], torch.tensor([1.0, 0, 0]))[1] == 3


def test_an_images_draw_depends_on_its_seed_alone():
    (alone, _), (together, _) = drawn([7]), drawn([3, 7])
    assert [part[0] for part in alone] == [part[1] for part in together]
    assert together[0][0] != together[0][1]
    state = torch.get_rng_state()
    drawn([7])
    assert torch.get_rng_state().equal(state)
