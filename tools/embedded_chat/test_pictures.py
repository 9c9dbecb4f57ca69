"""What must be true of the pictures' scenes and of the chats about them. Needs no package: ``python -m unittest`` in this folder."""

import random
import unittest

import corpus
from kinds import pictures, scenes
from template import IMAGE_PAD

SCENES = [scenes.scene(random.Random(seed)) for seed in range(400)]


class Scenes(unittest.TestCase):
    def test_shapes_keep_to_their_cells_and_apart(self):
        for scene in SCENES:
            cells = [item["cell"] for item in scene["things"]]
            self.assertEqual(cells, sorted(set(cells)))
            for index, item in enumerate(scene["things"]):
                self.assertEqual(item["cell"], int(item["y"] * 3) * 3 + int(item["x"] * 3))
                self.assertTrue(scenes.fits(item, scene["things"][:index], *scene["size"]))

    def test_every_colour_is_nearest_to_itself(self):
        rng = random.Random(2)
        for name, ranges in scenes.COLOURS.items():
            for other in set(scenes.COLOURS) - {name}:
                for _ in range(50):
                    self.assertGreater(scenes.distance(scenes.shade(rng, ranges), scenes.shade(rng, scenes.COLOURS[other])), 20, (name, other))


class Chats(unittest.TestCase):
    def test_every_mark_has_its_picture(self):
        for example in corpus.documents(seed=1, count=300, of=corpus.picture_document):
            marks = sum(content.count(IMAGE_PAD) for _, content in example.messages)
            self.assertEqual(marks, len(example.pictures))

    def test_answers_say_what_the_scene_holds(self):
        rng = random.Random(4)
        for scene in SCENES:
            for _ in range(5):
                kind, _, answer = pictures.exchange(rng, scene)
                if kind == "count" and "shapes." in answer and len(answer.split()) == 4:
                    self.assertIn(f" {pictures.NUMBERS[len(scene['things'])]} ", answer)
                if kind == "position":
                    self.assertTrue(any(pictures.place(item) in answer for item in scene["things"]))
                if kind == "word":
                    self.assertEqual(answer, f"The word is {scene['word']['text']}.")

    def test_no_training_picture_is_held_out(self):
        train = {pictures.subject(scene) for example in corpus.documents(seed=1, count=500, of=corpus.picture_document) for scene in example.pictures if scene["things"] or scene["word"]}
        self.assertFalse(any(corpus.is_reserved(subject) for subject in train))


if __name__ == "__main__":
    unittest.main()
