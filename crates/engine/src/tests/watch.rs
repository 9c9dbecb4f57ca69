//! A model that does not come back: what waits and what runs goes on, on the model loaded again.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::executor::block_on;
use models::{
    Batch, CausalLm, LoadOptions, LoadedModel, Loading, ModelShape, Outputs, PackedCache, Repository,
};
use protocol::{Event, Failure, Health, Inference};
use tensor::packed::streamed::StreamedWeights;
use tensor::{Isa, Kernels, KvArena};

use super::bench::{loaded, settings, tokens};
use super::model::HashModel;
use crate::{Engine, EngineSettings, Revive};

/// Reading it makes the model hang.
const HANG: u32 = 77;

/// How often the model hangs, and what it waits for then.
#[derive(Default)]
pub(crate) struct Door {
    hangs: AtomicU32,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Door {
    pub(crate) fn hanging(times: u32) -> Arc<Self> {
        Arc::new(Self { hangs: AtomicU32::new(times), ..Self::default() })
    }

    /// Hangs, if it still is to.
    pub(crate) fn pass(&self) {
        let left = |hangs: u32| hangs.checked_sub(1);
        if self.hangs.fetch_update(SeqCst, SeqCst, left).is_ok() {
            let is_open = self.is_open.lock().unwrap();
            drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
        }
    }

    pub(crate) fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

struct Hanging {
    model: HashModel,
    door: Arc<Door>,
}

impl CausalLm for Hanging {
    fn shape(&self) -> ModelShape {
        self.model.shape()
    }

    fn twin(&self, _: Arc<dyn Kernels>) -> Box<dyn CausalLm> {
        Box::new(Self { model: HashModel::new(), door: Arc::clone(&self.door) })
    }

    fn forward(&mut self, batch: &Batch, kv: &mut KvArena) -> Outputs<'_> {
        if batch.tokens.contains(&HANG) {
            self.door.pass();
        }
        self.model.forward(batch, kv)
    }
}

fn model(door: &Arc<Door>) -> LoadedModel {
    let model = Hanging { model: HashModel::new(), door: Arc::clone(door) };
    LoadedModel { model: Box::new(model), ..loaded(HashModel::new()) }
}

fn engine(door: &Arc<Door>) -> Arc<Engine> {
    let again = Arc::clone(door);
    let settings = EngineSettings {
        restart_after: Some(Duration::from_millis(500)),
        revive: Some(Revive::new(move || Ok(model(&again)))),
        ..settings(24, 32, 3)
    };
    Engine::start(model(door), settings).unwrap()
}

/// Ten requests at once, of which the fifth makes the model hang; what each of them heard.
fn serve(engine: &Engine) -> Vec<Vec<Event>> {
    let requests = (0..10u32).map(|i| {
        let mut prompt = vec![i + 1; 20 + i as usize];
        prompt[3] = if i == 4 { HANG } else { 5 };
        let mut request = tokens(prompt, 30);
        request.id.0 = i.to_string();
        request.limits.ignore_eos = true;
        request
    });
    block_on(async {
        let accepted: Vec<_> = requests.map(|request| engine.generate(request)).collect();
        let streams = futures::future::join_all(accepted).await;
        let heard = streams.into_iter().map(|stream| stream.unwrap().collect::<Vec<_>>());
        futures::future::join_all(heard).await
    })
}

/// The tokens of a reply: how they are parted into deltas depends on who reads when.
fn text(events: &[Event]) -> Vec<u32> {
    let deltas = events.iter().filter_map(|event| match event {
        Event::Delta(delta) => Some(&delta.tokens),
        _ => None,
    });
    deltas.flatten().copied().collect()
}

#[test]
fn a_model_that_does_not_come_back_is_loaded_again_and_nothing_is_lost() {
    let expected = serve(&engine(&Arc::default()));
    let door = Door::hanging(1);
    let engine = engine(&door);
    for (heard, expected) in serve(&engine).iter().zip(&expected) {
        assert!(matches!(heard.last(), Some(Event::Done { .. })), "{:?}", heard.last());
        assert_eq!(text(heard), text(expected));
    }
    let status = engine.status();
    assert!(status.counters.restarts >= 1);
    assert!(matches!(&status.health, Health::Degraded(why) if why[0].contains("loaded again")));
    drop(engine);
    // The thread that was left behind ends when the model comes back after all, and frees what it held.
    door.open();
    while Arc::strong_count(&door) > 1 {
        std::thread::yield_now();
    }
}

#[test]
fn what_hangs_the_model_every_time_fails_and_the_others_do_not() {
    let expected = serve(&engine(&Arc::default()));
    let door = Door::hanging(u32::MAX);
    for (i, (heard, expected)) in serve(&engine(&door)).iter().zip(&expected).enumerate() {
        match heard.last() {
            Some(Event::Failed(Failure::Engine { message })) if i == 4 => {
                assert!(message.contains("did not come back"), "{message}");
            }
            last => assert!(i != 4 && matches!(last, Some(Event::Done { .. })), "{i}: {last:?}"),
        }
        assert!(i == 4 || text(heard) == text(expected));
    }
    door.open();
}

/// Weights of a model that are read when they are needed; memory has room for all, and they are read at once.
fn weights() -> StreamedWeights {
    let place = std::env::temp_dir().join(format!("tidegate-weights-{}", std::process::id()));
    let cache = PackedCache::new(&place, 1 << 30);
    let loading = Loading { cache: Some(&cache), weight_memory: Some(1 << 24), ..Loading::default() };
    let options = LoadOptions { dtype: None, quantise: None, kv: None, max_batch_tokens: 8, max_outputs: 8 };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/test_data/qwen3/model");
    let kernels = tensor::kernels(Isa::best(), 1);
    let loaded = models::load_with(&Repository::folder(folder).unwrap(), &options, kernels, loading).unwrap();
    std::fs::remove_dir_all(place).unwrap();
    loaded.streamed.unwrap()
}

#[test]
fn what_weights_have_counted_stays_when_their_model_is_loaded_again() {
    let door = Door::hanging(1);
    let again = Arc::clone(&door);
    let streamed = move || LoadedModel { streamed: Some(weights()), ..model(&again) };
    let first = streamed();
    let settings = EngineSettings {
        restart_after: Some(Duration::from_millis(500)),
        revive: Some(Revive::new(move || Ok(streamed()))),
        ..settings(24, 32, 3)
    };
    let engine = Engine::start(first, settings).unwrap();
    let before = engine.status().weights;
    assert!(before.read_bytes > 0 && before.bytes > 0);
    serve(&engine);
    let (after, restarts) = (engine.status().weights, engine.status().counters.restarts);
    assert!(restarts >= 1);
    assert_eq!(after.read_bytes, (1 + restarts) * before.read_bytes, "what both have read");
    assert_eq!((after.bytes, after.held_bytes), (before.bytes, before.held_bytes), "there is one of them");
    door.open();
}

#[test]
fn an_engine_that_hangs_can_be_dropped() {
    let door = Door::hanging(1);
    let settings =
        EngineSettings { stall_after: Duration::from_millis(20), restart_after: None, ..settings(24, 32, 3) };
    let engine = Engine::start(model(&door), settings).unwrap();
    let stream = block_on(engine.generate(tokens(vec![HANG; 5], 3))).unwrap();
    while !matches!(engine.status().health, Health::Unhealthy(_)) {
        std::thread::yield_now();
    }
    drop((stream, engine));
    door.open();
}
