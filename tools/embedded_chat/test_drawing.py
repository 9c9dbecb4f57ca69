"""What must be true of drawn pictures and of their patches. Needs numpy and Pillow, and is skipped where they are missing."""

import random
import unittest

try:
    import numpy as np

    import draw
    import pixels
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; requirements.txt has what it needs") from missing

from kinds import scenes

SCENES = [scenes.scene(random.Random(seed)) for seed in range(200)]


class Drawing(unittest.TestCase):
    def test_the_same_scene_gives_the_same_picture(self):
        for scene in SCENES[:40]:
            self.assertEqual(draw.picture(scene).tobytes(), draw.picture(scene).tobytes())

    def test_a_shape_has_its_colour_in_its_middle(self):
        for scene in SCENES:
            picture = np.asarray(draw.picture(dict(scene, noise=0, jpeg=0))).astype(int)
            for item in scene["things"]:
                at = picture[int(item["y"] * picture.shape[0]), int(item["x"] * picture.shape[1])]
                self.assertLess(abs(at - item["rgb"]).max(), 12)

    def test_a_word_lies_inside_its_picture(self):
        for seed in range(300):
            scene = scenes.scene(random.Random(seed), word=True)
            _, ends, _ = draw.letters(scene["word"], *scene["size"])
            self.assertLessEqual(ends[-1][1], scene["size"][0] + 1, scene)


class Pixels(unittest.TestCase):
    def test_sizes_are_fitted_as_the_reference_does(self):
        for size, wanted in (
            ((128, 128), (128, 128)), ((100, 100), (96, 96)), ((640, 480), (128, 96)), ((512, 512), (128, 128)),
            ((20, 20), (96, 96)), ((230, 36), (256, 64)), ((1920, 1080), (160, 96)), ((112, 112), (128, 128)),
        ):
            self.assertEqual(pixels.fitted(*size), wanted)

    def test_patches_of_a_cell_follow_each_other(self):
        rows, columns = pixels.places(4, 6)
        self.assertEqual(list(zip(rows[:8], columns[:8])), [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)])


if __name__ == "__main__":
    unittest.main()
