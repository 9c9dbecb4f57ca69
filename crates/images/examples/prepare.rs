//! Prepares the files it is given again and again and says how long each round took: `prepare ROUNDS THREADS FILE...`.
//!
//! With 0 threads it works without a pool. `tools/images/beside.py` runs it in turns with the reference processor.

use std::sync::Arc;
use std::time::Instant;

use futures::executor::block_on;
use images::{Limits, Patches, Pool, PoolSettings, Recipe, Urgency, patches};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().ok_or("usage: prepare ROUNDS THREADS FILE...");
    let (rounds, threads): (usize, usize) = (number()?.parse()?, number()?.parse()?);
    let files: Vec<Arc<[u8]>> =
        arguments.map(|path| std::fs::read(path).map(Into::into)).collect::<Result<_, _>>()?;
    let recipe = Recipe {
        patch_size: 16,
        temporal_patch_size: 2,
        merge_size: 2,
        min_pixels: 1 << 16,
        max_pixels: 1 << 24,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
    };
    let recipe = Arc::new(recipe);
    let mut values = Vec::new();
    let mut fill = |patches: &Patches| {
        values.resize(patches.grid.patches() * recipe.patch_values(), 0.0);
        patches.fill(0..patches.grid.patches(), &mut values);
    };
    let pool = match threads {
        0 => None,
        threads => Some(Pool::new(PoolSettings { threads, ..PoolSettings::default() })?),
    };
    for _ in 0..rounds {
        let begun = Instant::now();
        match &pool {
            None => {
                for file in &files {
                    fill(&patches(file, &recipe, &Limits::default())?);
                }
            }
            Some(pool) => {
                let hand_in = |file: &Arc<[u8]>| pool.still(file.clone(), recipe.clone(), Urgency::Normal);
                let preparing: Vec<_> = files.iter().map(hand_in).collect::<Result<_, _>>()?;
                for preparing in preparing {
                    block_on(preparing)?;
                }
            }
        }
        println!("{:.6}", begun.elapsed().as_secs_f64());
    }
    Ok(())
}
