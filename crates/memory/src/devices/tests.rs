//! Choosing a device, and a real one where there is one.

use super::*;
use crate::rung::tests::device::opencl;

#[test]
fn choices_are_read_as_they_are_written() {
    for (text, choice) in [
        ("auto", DeviceChoice::Auto),
        ("3", DeviceChoice::Index(3)),
        ("H200", DeviceChoice::Name("H200".to_owned())),
    ] {
        assert_eq!((text.parse(), choice.to_string()), (Ok(choice), text.to_owned()));
    }
}

#[test]
fn a_device_that_is_not_there_is_refused_with_those_that_are() {
    let Some(device) = opencl(1) else {
        let error = devices().unwrap_err().to_string();
        assert!(error.contains("install"), "{error}");
        return;
    };
    let Description { index, name, memory, .. } = device.description().clone();
    let error = OpenCl::open(&DeviceChoice::Index(999), 1).unwrap_err().to_string();
    assert!(error.starts_with("there is no device '999'") && error.contains(&name), "{error}");
    let choice = DeviceChoice::Name(name[..name.len() / 2].to_uppercase());
    assert!(OpenCl::open(&choice, 1).is_ok(), "{choice}");
    let more = usize::try_from(memory).unwrap() + 1;
    let error = OpenCl::open(&DeviceChoice::Index(index), more).unwrap_err().to_string();
    assert!(error.contains(&name) && error.contains(&more.to_string()), "{error}");
}

#[test]
fn regions_hold_what_is_written_to_them_at_any_offset() {
    let Some(device) = opencl(16 << 20) else { return };
    let regions: Vec<_> = (0..4).map(|_| device.allocate(1 << 20).unwrap()).collect();
    std::thread::scope(|scope| {
        for (number, region) in regions.iter().enumerate() {
            let device = &device;
            scope.spawn(move || {
                for round in 0..20 {
                    let offset = 4096 * round + number;
                    let bytes: Vec<u8> = (0..300_000).map(|at| (at * 7 + number + round) as u8).collect();
                    device.write(region, offset, &bytes).unwrap();
                    let mut back = vec![0; bytes.len()];
                    device.read(region, offset, &mut back).unwrap();
                    assert!(back == bytes, "round {round} of region {number}");
                }
            });
        }
    });
    let beyond = device.write(&regions[0], (1 << 20) - 1, &[0; 2]).unwrap_err();
    assert!(matches!(beyond, DeviceFault::Failed { .. }), "{beyond}");
}
