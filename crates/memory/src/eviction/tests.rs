//! Every policy by a scenario: what happens on the left, who goes on the right. And what all of them promise.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn key(name: &str) -> Key {
    Key(name.bytes().fold(0, |key, byte| key << 8 | u128::from(byte)))
}

fn name(key: Key) -> String {
    let bytes = key.0.to_be_bytes();
    bytes.iter().filter(|byte| **byte > 0).map(|byte| char::from(*byte)).collect()
}

/// Plays `insert NAME [bytes=N] [cost=S]`, `touch NAME`, `remove NAME` and `evict [but NAME...]`, which answers.
fn play(policy: &mut dyn Eviction, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = |field: &str| words.iter().find_map(|word| word.strip_prefix(field)?.parse::<f64>().ok());
    match words[0] {
        "insert" => {
            let bytes = value("bytes=").unwrap_or(1.0) as usize;
            policy.insert(key(words[1]), Facts { bytes, cost: value("cost=").unwrap_or(1.0) });
        }
        "touch" => policy.touch(key(words[1])),
        "remove" => policy.remove(key(words[1])),
        "evict" => {
            let victim = policy.victim(&mut |key| !words.contains(&name(key).as_str()));
            victim.into_iter().for_each(|victim| policy.remove(victim));
            return victim.map_or("nobody".to_owned(), name);
        }
        other => panic!("{other}?"),
    }
    String::new()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "UPDATE_EXPECT is the switch of the tests, not a setting")]
fn scenarios() {
    for policy in POLICIES {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("test_data/eviction/{}.txt", policy.name));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut state = (policy.make)();
        let mut played = String::new();
        for line in text.lines() {
            if line.is_empty() {
                state = (policy.make)();
            }
            let act = line.split(" -> ").next().unwrap_or(line);
            let answer =
                if act.is_empty() || act.starts_with('#') { String::new() } else { play(&mut *state, act) };
            let arrow = if answer.is_empty() { "" } else { " -> " };
            played += &format!("{act}{arrow}{answer}\n");
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &played).unwrap();
            continue;
        }
        assert_eq!(played, text, "{}", policy.name);
    }
}

#[test]
fn policies_are_found_by_name() {
    for policy in POLICIES {
        assert_eq!(policy.name.parse::<Policy>().unwrap().about, policy.about);
    }
    let error = "random".parse::<Policy>().unwrap_err().to_string();
    assert!(error.contains("'random'; give lru or lfu"), "{error}");
    assert_eq!(PolicyChoice::default().name(), "lru");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn victims_are_present_and_allowed_and_there_is_one_while_there_can_be(
        acts in prop::collection::vec((0usize..4, 0u128..12), 1..120),
    ) {
        for policy in POLICIES {
            let mut state = (policy.make)();
            let mut present = BTreeMap::new();
            for &(act, number) in &acts {
                let key = Key(number);
                match act {
                    0 if !present.contains_key(&key) => {
                        state.insert(key, Facts { bytes: number as usize, cost: number as f64 });
                        present.insert(key, ());
                    }
                    1 if present.contains_key(&key) => state.touch(key),
                    2 if present.remove(&key).is_some() => state.remove(key),
                    _ => {
                        let victim = state.victim(&mut |other| other.0 % 3 != number % 3);
                        let allowed = present.keys().any(|other| other.0 % 3 != number % 3);
                        prop_assert_eq!(victim.is_some(), allowed, "{}", policy.name);
                        if let Some(victim) = victim {
                            prop_assert!(victim.0 % 3 != number % 3);
                            prop_assert!(present.remove(&victim).is_some(), "{}", policy.name);
                            state.remove(victim);
                        }
                    }
                }
            }
        }
    }
}
