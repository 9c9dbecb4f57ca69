"""What must be true of the corpus. Needs no package: ``python -m unittest`` in this folder."""

import json
import random
import re
import unittest

import corpus
from kinds import about_tidegate, small_talk, stories
from kinds.grammar import fill, say
from template import render

SAMPLE = list(corpus.documents(seed=1, count=3000))


class Corpus(unittest.TestCase):
    def test_the_same_seed_gives_the_same_documents(self):
        self.assertEqual(SAMPLE[:200], list(corpus.documents(seed=1, count=200)))

    def test_no_training_document_touches_a_reserved_subject(self):
        held_out = list(corpus.documents(seed=1, count=200, held_out=True))
        self.assertFalse(any(corpus.is_held_out(example) for example in SAMPLE))
        self.assertTrue(all(corpus.is_held_out(example) for example in held_out))

    def test_every_sum_is_right(self):
        for example in SAMPLE:
            for line in [example.text] + [content for role, content in example.messages if role == "assistant"]:
                for a, sign, b, c in re.findall(r"(\d+) ([-+x]) (\d+) = (\d+)", line):
                    self.assertEqual({"+": int(a) + int(b), "-": int(a) - int(b), "x": int(a) * int(b)}[sign], int(c))

    def test_every_json_reply_parses(self):
        for example in SAMPLE:
            if example.kind == "json":
                json.loads(example.messages[-1][1])

    def test_no_hole_is_left_open(self):
        for example in SAMPLE:
            if example.kind not in ("json", "conversation"):
                self.assertNotRegex(render(corpus.as_json(example)), r"[{}\[\]]|  |\bNone\b")

    def test_chats_alternate_and_end_with_a_reply(self):
        for example in SAMPLE:
            roles = [role for role, _ in example.messages if role != "system"]
            self.assertEqual(roles, ["user", "assistant"] * (len(roles) // 2))

    def test_every_story_names_its_hero(self):
        rng = random.Random(3)
        for _ in range(300):
            example = stories.story(rng)
            hero = example.keys[1].split()[1]
            self.assertIn(hero, example.text or example.messages[-1][1])


class Grammar(unittest.TestCase):
    def test_alternatives_nest_and_may_be_empty(self):
        rng = random.Random(5)
        self.assertEqual({fill(rng, "a[| b[c|d]]") for _ in range(100)}, {"a", "a bc", "a bd"})

    def test_sentences_get_their_capitals(self):
        self.assertEqual(say(random.Random(1), "{x} ran. \"stop!\" he said.", x="the fox"), "The fox ran. \"Stop!\" he said.")

    def test_every_template_can_be_filled(self):
        rng = random.Random(6)
        for _ in range(2000):
            small_talk.exchange(rng)
            small_talk.unknown(rng)
            about_tidegate.question(rng)


if __name__ == "__main__":
    unittest.main()
