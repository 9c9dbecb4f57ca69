//! The layers of a model that is four times as large as the memory for it: put away once, then brought up one after the
//! other, each while the one before is in use.

use std::time::Instant;

use tidegate::memory::{OffloadError, Offloader, OffloaderSettings, Policy, PolicyChoice};

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
    let settings = OffloaderSettings {
        memory: LAYERS * BYTES / 4,
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
    drop(offloader);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
