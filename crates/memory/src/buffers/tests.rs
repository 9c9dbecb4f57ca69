//! Buffers never overlap, never exceed the budget, and grow together again.

use proptest::prelude::*;

use super::*;

#[test]
fn size_classes_are_pages_and_round_by_less_than_a_quarter() {
    let classes = [
        (0, 1),
        (1, 1),
        (4096, 1),
        (4097, 2),
        (5 * 4096, 5),
        (9 * 4096, 10),
        (17 * 4096, 20),
        (896 * 4096, 896),
    ];
    for (bytes, pages) in classes {
        assert_eq!(size_class(bytes), pages * BLOCK, "{bytes}");
    }
    for bytes in (1..3 << 20).step_by(777) {
        let class = size_class(bytes);
        assert!(class >= bytes && class.is_multiple_of(BLOCK));
        assert!(class - bytes < BLOCK + bytes / 4, "{bytes} becomes {class}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn buffers_keep_what_they_hold_within_the_budget_and_leave_one_stretch(
        acts in prop::collection::vec((0usize..4, 1usize..60_000), 1..80),
    ) {
        let pool = BufferPool::new(256 << 10, Residency::Pageable).unwrap();
        let mut held: Vec<(u8, Buffer)> = Vec::new();
        for (index, (act, size)) in acts.into_iter().enumerate() {
            match act {
                0 | 1 => {
                    if let Some(mut buffer) = pool.take(size) {
                        let mark = index as u8;
                        buffer.fill(mark);
                        buffer.clear_padding();
                        prop_assert_eq!(buffer.as_ptr() as usize % BLOCK, 0);
                        held.push((mark, buffer));
                    }
                }
                2 if !held.is_empty() => drop(held.swap_remove(size % held.len())),
                _ => pool.set_budget(size * 5),
            }
            let sum: usize = held.iter().map(|(_, buffer)| buffer.footprint()).sum();
            prop_assert_eq!(pool.used(), sum);
            for (mark, buffer) in &held {
                prop_assert!(buffer.iter().all(|byte| byte == mark));
                prop_assert!(buffer.padded()[buffer.len()..].iter().all(|byte| *byte == 0));
            }
        }
        pool.set_budget(usize::MAX);
        prop_assert_eq!(pool.budget(), pool.capacity());
        held.clear();
        prop_assert_eq!((pool.used(), pool.fragments()), (0, 1));
        prop_assert!(pool.take(pool.capacity()).is_some());
    }
}

#[test]
fn a_lowered_budget_hands_out_nothing_until_there_is_room() {
    let pool = BufferPool::new(64 << 10, Residency::Locked).unwrap();
    let held = pool.take(40 << 10).unwrap();
    pool.set_budget(20 << 10);
    assert!(pool.take(1).is_none());
    drop(held);
    assert!(pool.take(20 << 10).is_some());
    assert!(pool.take(21 << 10).is_none());
}
