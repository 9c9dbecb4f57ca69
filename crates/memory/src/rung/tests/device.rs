//! What the device rung notices, and the contract on a real device.

use super::*;
use crate::devices::{DeviceChoice, Misfortune, OpenCl};

/// A device of this machine, a GPU if there is one. Where there is none, this says so and the test that asks shows nothing;
/// it fails where `REQUIRE_OPENCL` says that there has to be one.
#[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests, not configuration")]
pub(crate) fn opencl(bytes: usize) -> Option<OpenCl> {
    let opened = OpenCl::open(&DeviceChoice::Auto, bytes)
        .or_else(|_| OpenCl::open(&DeviceChoice::Index(0), bytes))
        .inspect_err(|error| println!("nothing is shown on a real device: {error}"));
    assert!(opened.is_ok() || std::env::var_os("REQUIRE_OPENCL").is_none(), "{opened:?}");
    opened.ok()
}

#[test]
fn a_real_device_gives_back_what_it_was_given() {
    let Some(device) = opencl(64 << 20) else { return };
    let rung = DeviceRung::new(device);
    check(&rung);
    assert!(rung.inventory().unwrap().iter().all(|(key, _)| rung.remove(*key).is_ok()));
    // Rooms of many sizes are taken and given back, from several threads at once.
    let (rung, pool) = (&rung, &pool());
    std::thread::scope(|scope| {
        for client in 0..3 {
            scope.spawn(move || {
                for round in 0..60 {
                    let length = (round * 37_987 + client * 4099) % 1_200_000;
                    let objects = [object(pool, (client * 1000 + round) as u128, length)];
                    let [(key, blob)] = &objects;
                    assert_eq!(keep(rung, &objects), [Ok(())]);
                    let mut into = pool.take(length).unwrap();
                    rung.fetch(*key, &mut into, &Stop::default()).unwrap();
                    assert!(into[..] == blob.bytes[..], "{length} bytes of client {client}");
                    rung.remove(*key).unwrap();
                }
            });
        }
    });
    assert!(rung.inventory().unwrap().is_empty());
}

#[test]
fn a_full_device_is_told_from_a_broken_and_from_a_lost_one() {
    let (pool, device) = (pool(), SimulatedDevice::new(3 * 4096));
    let rung = DeviceRung::new(device.clone());
    let outcomes = keep(&rung, &[object(&pool, 1, 8000), object(&pool, 2, 8000)]);
    assert!(outcomes[0].is_ok());
    assert!(matches!(&outcomes[1], Err(RungError::Full { .. })), "{outcomes:?}");
    assert_eq!(device.taken(), 8192, "what could not be kept takes nothing");
    // A driver finds memory when it is first written to.
    device.fail_at(device.calls() + 1, Misfortune::Full);
    assert!(matches!(keep(&rung, &[object(&pool, 2, 100)])[0], Err(RungError::Full { .. })));
    device.fail_at(device.calls(), Misfortune::Broken);
    assert!(matches!(fetch(&rung, &pool, Key(1), 8000), Err(RungError::Failed { .. })));
    assert!(fetch(&rung, &pool, Key(1), 8000).is_ok(), "it may work the next time");
    device.fail_at(device.calls(), Misfortune::Lost);
    let lost = fetch(&rung, &pool, Key(1), 8000).unwrap_err();
    assert!(matches!(lost, RungError::Gone { .. }), "{lost}");
    let refused = keep(&rung, &[object(&pool, 2, 100)]).remove(0).unwrap_err().to_string();
    assert_eq!(refused, "cannot write to a simulated device: as it was told");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn what_a_device_does_wrong_is_an_error_and_never_other_bytes(
        misfortunes in prop::collection::vec((0u64..12, 0usize..4), 0..4),
        length in 1usize..9000,
    ) {
        let (pool, device) = (pool(), SimulatedDevice::new(1 << 20));
        let rung = DeviceRung::new(device.clone());
        for (call, which) in &misfortunes {
            device.fail_at(*call, MISFORTUNES[*which]);
        }
        let objects: Vec<_> = (1..4).map(|number| object(&pool, number, length)).collect();
        let kept = keep(&rung, &objects);
        for ((key, blob), kept) in objects.iter().zip(kept) {
            match fetch(&rung, &pool, *key, length) {
                Ok(bytes) => prop_assert!(kept.is_ok() && bytes[..] == blob.bytes[..]),
                Err(error) => prop_assert!(!misfortunes.is_empty(), "{}", error),
            }
        }
        drop(rung);
        prop_assert_eq!(device.taken(), 0);
    }
}

/// All that may happen to a device.
pub(crate) const MISFORTUNES: [Misfortune; 4] =
    [Misfortune::Full, Misfortune::Broken, Misfortune::Flipped, Misfortune::Lost];
