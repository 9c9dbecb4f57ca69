//! The layers of a model that is four times as large as the memory for it: put away once, then brought up one after the
//! other, each while the one before is in use. What memory has no room for goes to the disk; with the number or a part of the name
//! of a device as argument, such as `offload 0`, as much again as memory holds goes to its memory first.

use std::time::Instant;

use tidegate::memory::{DeviceChoice, OffloadError, Offloader, OffloaderSettings, Policy, PolicyChoice};

const LAYERS: usize = 32;
const BYTES: usize = 1 << 20;

fn name(layer: usize) -> String {
    format!("layer.{layer}.weight")
}

fn weights(layer: usize) -> Vec<u8> {
    (0..BYTES).map(|i| (i * 31 + layer) as u8).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("tidegate-offload-{}", std::process::id()));
    let device = std::env::args().nth(1).map(|name| name.parse::<DeviceChoice>()).transpose()?;
    let settings = OffloaderSettings {
        memory: LAYERS * BYTES / 4,
        device: device.map(|device| (device, LAYERS * BYTES / 4)),
        disk: Some((folder.clone(), 2 * LAYERS * BYTES)),
        policy: PolicyChoice::Known("lfu".parse::<Policy>()?),
        ..OffloaderSettings::default()
    };
    let offloader = Offloader::open(&settings)?;
    for layer in 0..LAYERS {
        offloader.offload(&name(layer), &weights(layer)).await?;
    }

    let began = Instant::now();
    for layer in 0..LAYERS {
        let next = [name(layer + 1), name(layer + 2)];
        offloader.prefetch(next.iter().map(String::as_str));
        let loaded = offloader.load(&name(layer)).await?;
        assert!(loaded[..] == weights(layer)[..], "layer {layer} has come back bit for bit");
    }
    let took = began.elapsed();

    match offloader.load("layer.99.weight").await {
        Err(error @ OffloadError::Unknown { .. }) => println!("{error}"),
        other => panic!("{other:?}"),
    }
    let stats = offloader.stats();
    assert!(stats.host_used <= settings.memory);
    println!("{LAYERS} layers of {BYTES} bytes through {} of memory in {took:?}", settings.memory);
    println!("{} were there, {} came up, {} came up ahead", stats.hits, stats.raises, stats.prefetches_used);
    for level in offloader.levels() {
        println!("{}: {} bytes of {} in use", level.place, level.used, level.budget);
        println!("  {} bytes went there and {} came back", level.written, level.read);
    }
    drop(offloader);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
