"""What must be true of the dense labels that teach the vision tower. Needs torch, and is skipped where it is missing."""

import random
import unittest

try:
    import look
    import pixels
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; requirements.txt has what it needs") from missing

from kinds import scenes

SCENES = [scenes.scene(random.Random(seed)) for seed in range(200)]


def named(scene):
    """The labels of a scene: of its patches, of where shapes have their middle, of its tokens, and of how many there are."""
    patch, token = look.labels(scene, *pixels.grid(*scene["size"]))
    seen, first = len(look.PATCH_HEADS), len(look.TOKEN_HEADS)
    return patch[:, :seen], patch[:, seen:], token[:, :first], token[:, first:]


class Labels(unittest.TestCase):
    def test_every_label_has_a_place_in_its_head(self):
        for scene in SCENES:
            _, middle, token, counts = named(scene)
            self.assertTrue((middle.max(0) < look.MIDDLE_HEADS).all() and (token.max(0) < look.TOKEN_HEADS).all())
            self.assertTrue((counts.max(0) < look.COUNT_HEADS).all() and counts.min() >= 0)

    def test_every_shape_has_one_patch_that_is_its_middle(self):
        for scene in SCENES:
            _, middle, _, _ = named(scene)
            wanted = sorted((look.COLOURS.index(item["colour"]), look.SHAPES.index(item["shape"])) for item in scene["things"])
            self.assertEqual(sorted(map(tuple, middle[middle[:, 0] > 0])), wanted)

    def test_every_token_knows_how_many_of_each_kind_there_are(self):
        for scene in SCENES:
            of_kinds = named(scene)[3][:, len(look.LIKE) :]
            self.assertTrue((of_kinds == of_kinds[0]).all())
            for (field, value), number in zip(look.KINDS, of_kinds[0]):
                self.assertEqual(number, [item[field] for item in scene["things"]].count(value))

    def test_a_shape_knows_how_many_are_like_it(self):
        two = next(scene for scene in SCENES if len(scene["things"]) == 2)
        first, second = two["things"]
        for alike in (True, False):
            shape = first["shape"] if alike else next(other for other in scenes.SHAPES if other != first["shape"])
            colour = next(other for other in scenes.COLOURS if other != first["colour"])
            counts = named({**two, "things": [first, {**second, "shape": shape, "colour": colour}]})[3][:, : len(look.LIKE)]
            self.assertEqual([list(row) for row in counts if row.any()], [[1, 2 if alike else 1, 1]] * 2)


if __name__ == "__main__":
    unittest.main()
