//! Tensors by name over a real folder.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::rung::Medium;

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn tensor(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + number) as u8).collect()
}

#[test]
fn tensors_larger_than_memory_are_put_away_and_come_back_bit_for_bit() {
    let path = crate::rung::tests::folder("offloader");
    let settings = OffloaderSettings {
        memory: 1 << 20,
        items: Some(5),
        disk: Some((path.clone(), 64 << 20)),
        ..OffloaderSettings::default()
    };
    let offloader = Offloader::open(&settings).unwrap();
    let names: Vec<String> = (0..24).map(|number| format!("layer.{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        block_on(offloader.offload(name, &tensor(number, 150_000))).unwrap();
    }
    block_on(offloader.offload("layer.3", &tensor(99, 200_000))).unwrap();
    let stats = offloader.stats();
    assert!(stats.host_used <= 1 << 20 && stats.host_objects <= 5 + stats.transfers, "{stats:?}");
    assert!(offloader.prefetch(["layer.0", "layer.1", "nothing"]) <= 2);
    for (number, name) in names.iter().enumerate().filter(|(number, _)| *number != 3) {
        assert_eq!(block_on(offloader.load(name)).unwrap()[..], tensor(number, 150_000));
    }
    assert_eq!(block_on(offloader.load("layer.3")).unwrap()[..], tensor(99, 200_000));
    assert!(offloader.remove("layer.3") && !offloader.remove("layer.3"));
    let error = block_on(offloader.load("layer.3")).unwrap_err();
    assert_eq!(error.to_string(), "nothing is offloaded under the name 'layer.3'");
    assert_eq!(offloader.names_of_all().len(), 23);
    let again = Offloader::open(&settings).map(drop).unwrap_err().to_string();
    assert!(again.contains("is used by another process"), "{again}");
    drop(offloader);
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn without_a_disk_what_does_not_fit_is_refused_and_nothing_is_lost() {
    let settings = OffloaderSettings { memory: 64 << 10, ..OffloaderSettings::default() };
    let offloader = Offloader::open(&settings).unwrap();
    block_on(offloader.offload("a", &tensor(1, 40_000))).unwrap();
    let error = block_on(offloader.offload("b", &tensor(2, 40_000))).unwrap_err();
    assert!(error.to_string().starts_with("cannot offload 'b': no room for 40000 bytes"), "{error}");
    assert_eq!(block_on(offloader.load("a")).unwrap()[..], tensor(1, 40_000));
    offloader.pin("a").unwrap();
    offloader.unpin("a").unwrap();
    assert!(offloader.pin("b").is_err());
}

#[test]
fn tensors_go_to_a_device_before_they_go_to_the_disk() {
    const DEVICE: usize = 8 << 20;
    let Some(device) = crate::rung::tests::device::opencl(DEVICE) else { return };
    let choice = DeviceChoice::Index(device.description().index);
    for disk in [false, true] {
        let path = crate::rung::tests::folder("offloader-device");
        let settings = OffloaderSettings {
            memory: 1 << 20,
            device: Some((choice.clone(), DEVICE)),
            disk: disk.then(|| (path.clone(), 64 << 20)),
            ..OffloaderSettings::default()
        };
        let offloader = Offloader::open(&settings).unwrap();
        let count = if disk { 90 } else { 50 };
        let names: Vec<String> = (0..count).map(|number| format!("layer.{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            block_on(offloader.offload(name, &tensor(number, 150_000))).unwrap();
        }
        for (number, name) in names.iter().enumerate() {
            assert_eq!(block_on(offloader.load(name)).unwrap()[..], tensor(number, 150_000), "{name}");
        }
        let levels = offloader.levels();
        let media: Vec<Medium> = levels.iter().map(|level| level.medium).collect();
        assert_eq!(media, if disk { vec![Medium::Device, Medium::Disk] } else { vec![Medium::Device] });
        assert!(levels.iter().all(|level| level.read > 0 && level.used <= level.budget), "{levels:?}");
        assert_eq!(offloader.stats().faults, 0);
        drop(offloader);
        let _ = std::fs::remove_dir_all(&path);
    }
}
