//! A model that does not come back: what waits and what runs goes on, on the model loaded again.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::executor::block_on;
use models::{Batch, CausalLm, LoadedModel, ModelShape};
use protocol::{Event, Failure, Health, Inference};
use tensor::{Kernels, KvArena};

use super::bench::{loaded, settings, tokens};
use super::model::HashModel;
use crate::{Engine, EngineSettings, Revive};

/// Reading it makes the model hang.
const HANG: u32 = 77;

/// How often the model hangs, and what it waits for then.
#[derive(Default)]
struct Door {
    hangs: AtomicU32,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Door {
    fn open(&self) {
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

    fn forward(&mut self, batch: &Batch, kv: &mut KvArena) -> &[f32] {
        let left = |hangs: u32| hangs.checked_sub(1);
        if batch.tokens.contains(&HANG) && self.door.hangs.fetch_update(SeqCst, SeqCst, left).is_ok() {
            let is_open = self.door.is_open.lock().unwrap();
            drop(self.door.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
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
    let door = Arc::new(Door { hangs: AtomicU32::new(1), ..Door::default() });
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
    let door = Arc::new(Door { hangs: AtomicU32::new(u32::MAX), ..Door::default() });
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

#[test]
fn an_engine_that_hangs_can_be_dropped() {
    let door = Arc::new(Door { hangs: AtomicU32::new(1), ..Door::default() });
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
