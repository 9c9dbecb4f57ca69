//! How fast a model sees, and what streams notice of it:
//!
//!     cargo run --release -p tidegate-engine --example pictures -- MODEL IMAGE [bf16|int8|int4] [TARGET_MS]
//!
//! prints the speed of the vision tower and of reading the image's tokens; then the time between tokens of 8 streams,
//! first alone and then while two requests with that image (changed by a byte each, so that both are read) come in.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Engine, EngineSettings, KvBudget, PidSettings};
use futures::StreamExt;
use futures::executor::block_on;
use models::vision::{Frame, Grid, Pixels};
use models::{LoadOptions, LoadedModel, Quantisation, Repository};
use protocol::{Event, GenerateRequest, Image, Inference, Prompt};
use tensor::{Dtype, Isa};

/// Streams, and tokens of each.
const STREAMS: usize = 8;
const TOKENS: u32 = 60;

/// Passes of the tower alone.
const PASSES: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = env::args().skip(1).collect();
    let [model, image, rest @ ..] = given.as_slice() else {
        return Err("give a model folder and an image".into());
    };
    let quantise = match rest.first().map(String::as_str) {
        None | Some("bf16") => None,
        Some("int8") => Some(Quantisation::INT8),
        Some("int4") => Some(Quantisation::INT4),
        Some(other) => return Err(format!("'{other}' is none of bf16, int8, int4").into()),
    };
    let target = rest.get(1).map(|target| target.parse().map(Duration::from_millis)).transpose()?;
    let dtype = if quantise.is_none() { Some(Dtype::Bf16) } else { None };
    let options = LoadOptions { dtype, quantise, kv: None, max_batch_tokens: 512, max_outputs: 16 };
    let threads = std::thread::available_parallelism()?.get();
    let mut loaded =
        models::load(&Repository::open(model)?, &options, tensor::kernels(Isa::best(), threads))?;
    let bytes: Arc<[u8]> = std::fs::read(image)?.into();
    let tokens = tower(&mut loaded, &bytes)?;
    let mark = loaded.vision.as_ref().map_or(0, |vision| vision.marks.image);
    let settings = EngineSettings {
        max_sequences: 16,
        kv: KvBudget::Bytes(2 << 30),
        pid: PidSettings { target, ..PidSettings::default() },
        ..EngineSettings::default()
    };
    let engine = Engine::start(loaded, settings)?;
    first_token(&engine, (mark, &bytes), tokens);
    let alone = streams(&engine, &[]);
    let pictures = [bytes.clone(), bytes].map(|bytes| asking(mark, &bytes, 1));
    let beside = streams(&engine, &pictures);
    for (what, mut times) in [("alone", alone), ("beside 2 images", beside)] {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "{what}: between tokens p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    Ok(())
}

/// Reads the image by the tower alone, some times, since the first pass meets memory that was never touched; returns its
/// tokens.
fn tower(loaded: &mut LoadedModel, bytes: &[u8]) -> Result<usize, Box<dyn Error>> {
    let vision = loaded.vision.as_mut().ok_or("the model cannot see")?;
    let began = Instant::now();
    let patches = images::patches(bytes, &vision.recipe, &images::Limits::default())?;
    println!("prepared in {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    let grid = Grid { h: patches.grid.h, w: patches.grid.w };
    let (work, tokens) = (vision.tower.work(grid), grid.tokens(vision.marks.merge));
    let made = Arc::new(patches);
    for _ in 0..PASSES {
        vision.tower.begin(Frame { grid, pixels: Pixels::Patches { made: Arc::clone(&made), step: 0 } })?;
        let began = Instant::now();
        while vision.tower.advance(u64::MAX).is_none() {}
        let took = began.elapsed().as_secs_f64();
        println!(
            "tower: {} patches, {tokens} tokens in {took:.2} s, {:.0} GFLOP/s",
            grid.patches(),
            2e-9 * work as f64 / took
        );
    }
    Ok(tokens)
}

fn asking(mark: u32, image: &Arc<[u8]>, max_tokens: u32) -> GenerateRequest {
    let mut request = GenerateRequest::new("picture", Prompt::Tokens(vec![100, mark, 200, 300]));
    request.images = vec![Image { bytes: Arc::clone(image) }];
    request.limits.max_tokens = Some(max_tokens);
    request
}

fn first_token(engine: &Engine, (mark, image): (u32, &Arc<[u8]>), tokens: usize) {
    for what in ["first token", "first token of the same image again"] {
        let mut request = asking(mark, image, 1);
        // The pages of the prompt are not shared, so that reading its tokens is measured too.
        request.cache_salt = Some("one".to_owned());
        request.prompt = Prompt::Tokens(vec![what.len() as u32, mark, 200, 300]);
        let began = Instant::now();
        let Ok(mut generation) = block_on(engine.generate(request)) else { return };
        block_on(async { while generation.next().await.is_some() {} });
        println!("{what}: {:.2} s with {tokens} tokens of the image", began.elapsed().as_secs_f64());
    }
}

/// Times between the tokens of all streams, while other requests come in after a while.
fn streams(engine: &Arc<Engine>, others: &[GenerateRequest]) -> Vec<Duration> {
    let readers = (0..STREAMS as u32).map(|number| {
        let engine = Arc::clone(engine);
        std::thread::spawn(move || {
            let mut request =
                GenerateRequest::new("stream", Prompt::Tokens((0..16).map(|at| at * 7 + number).collect()));
            request.limits.max_tokens = Some(TOKENS);
            request.limits.ignore_eos = true;
            request.sampling.seed = Some(u64::from(number));
            let Ok(mut generation) = block_on(engine.generate(request)) else { return Vec::new() };
            let (mut times, mut last) = (Vec::new(), None);
            while let Some(event) = block_on(generation.next()) {
                if matches!(event, Event::Delta(_)) {
                    let now = Instant::now();
                    times.extend(last.replace(now).map(|last| now - last));
                }
            }
            times
        })
    });
    let readers: Vec<_> = readers.collect();
    std::thread::sleep(Duration::from_secs(1));
    let waiting: Vec<_> = others
        .iter()
        .enumerate()
        .map(|(number, request)| {
            let mut request = request.clone();
            let mut bytes = request.images[0].bytes.to_vec();
            bytes.push(number as u8);
            request.images[0].bytes = bytes.into();
            block_on(engine.generate(request))
        })
        .collect();
    let times = readers.into_iter().flat_map(|reader| reader.join().unwrap_or_default()).collect();
    drop(waiting);
    times
}
