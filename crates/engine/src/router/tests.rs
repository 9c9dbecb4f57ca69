//! Models that come and go while others serve.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::executor::block_on;
use protocol::scripted::{Gate, Script, Scripted};
use protocol::status::SleepStatus;
use protocol::{Phase, Prompt, Relief};

use super::*;

fn scripted(name: &str) -> Scripted {
    let card = ModelCard { id: name.to_owned(), ..Scripted::new().models().swap_remove(0) };
    Scripted::with_models(vec![card])
}

/// Has a model for every name but two.
#[derive(Default)]
struct Shelf {
    /// What has to be heard before a model is given out.
    word: Option<Mutex<Receiver<()>>>,
}

impl Supply for Shelf {
    fn has_room(&self, _memory: &MemoryPlan) -> bool {
        true
    }

    fn open(&self, model: &str) -> Result<Arc<dyn Inference>, Refusal> {
        if model == "nothing" {
            let message = "there is no nothing".to_owned();
            return Err(Refusal::InvalidParameter { param: "model".to_owned(), message });
        }
        assert!(model != "broken", "it is broken");
        if let Some(word) = &self.word {
            word.lock().unwrap().recv().unwrap();
        }
        Ok(Arc::new(scripted(model).always(Script::text(&["hello"]))))
    }
}

fn load(router: &Router, model: &str) -> Result<(), Refusal> {
    block_on(router.adjust(Adjustment::Load { model: model.to_owned() }))
}

fn unload(router: &Router, model: &str, grace: Duration) -> Result<(), Refusal> {
    block_on(router.adjust(Adjustment::Unload { model: model.to_owned(), grace }))
}

fn ask(router: &Router, model: Option<&str>) -> Result<Generation, Refusal> {
    let request = GenerateRequest::new("1", Prompt::Text("hi".to_owned()));
    block_on(router.generate(GenerateRequest { model: model.map(str::to_owned), ..request }))
}

fn names(router: &Router) -> Vec<String> {
    router.models().into_iter().map(|card| card.id).collect()
}

fn from(scripted: &Scripted, origin: &str) -> (Arc<dyn Inference>, Option<String>) {
    (Arc::new(scripted.clone()), Some(origin.to_owned()))
}

fn asleep(router: &Router) -> usize {
    router.status().models.iter().filter(|model| model.phase == Phase::Stopped).count()
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn models_come_and_go_and_nothing_else_changes() {
    let first = scripted("first").always(Script::text(&["first"]));
    let router = Router::with_supply(vec![from(&first, "first")], Arc::new(Shelf::default()));
    load(&router, "second").unwrap();
    assert_eq!(names(&router), ["first", "second"]);
    assert!(!block_on(ask(&router, Some("second")).unwrap().collect::<Vec<_>>()).is_empty());
    let twice = load(&router, "second").unwrap_err().to_string();
    assert!(twice.contains("NAME=PATH"), "{twice}");
    assert_eq!(load(&router, "nothing").unwrap_err().to_string(), "there is no nothing");
    assert!(load(&router, "broken").is_err());
    assert!(matches!(unload(&router, "third", LONG), Err(Refusal::UnknownModel { .. })));
    let accepted = router.status().counters.accepted;
    unload(&router, "second", LONG).unwrap();
    assert_eq!((names(&router), router.status().counters.accepted), (vec!["first".to_owned()], accepted));
    assert!(matches!(ask(&router, Some("second")), Err(Refusal::UnknownModel { .. })));
    load(&router, "second").unwrap();
    unload(&router, "first", LONG).unwrap();
    assert!(ask(&router, None).is_ok(), "the one that is left is the default");
    unload(&router, "second", LONG).unwrap();
    let told = ask(&router, None).unwrap_err();
    assert_eq!(told, Refusal::NotReady { reason: "no model is loaded".to_owned() });
    let without = Router::new(vec![Arc::new(first)]);
    assert!(matches!(load(&without, "second"), Err(Refusal::InvalidParameter { .. })));
}

#[test]
fn a_model_that_goes_ends_what_it_has_accepted() {
    let gate = Gate::new();
    let slow = scripted("slow").then(Script::new().started().gate(&gate).say("late").finish_and_done());
    let router = Router::with_supply(vec![from(&slow, "slow")], Arc::new(Shelf::default()));
    let running = ask(&router, None).unwrap();
    std::thread::scope(|scope| {
        let going = scope.spawn(|| unload(&router, "slow", LONG));
        while !names(&router).is_empty() {
            std::thread::yield_now();
        }
        assert!(matches!(ask(&router, Some("slow")), Err(Refusal::UnknownModel { .. })));
        let taken = load(&router, "slow").unwrap_err().to_string();
        assert!(taken.contains("there is a model called 'slow'"), "{taken}");
        assert_eq!(router.status().models.len(), 0, "the scripted model lists none");
        gate.open();
        assert!(!block_on(running.collect::<Vec<_>>()).is_empty());
        going.join().unwrap().unwrap();
    });
}

#[test]
fn a_model_comes_though_nobody_waits_for_it() {
    let (say, word) = mpsc::channel();
    let shelf = Shelf { word: Some(Mutex::new(word)) };
    let router = Router::with_supply(Vec::new(), Arc::new(shelf));
    let mut loading = router.adjust(Adjustment::Load { model: "late".to_owned() });
    assert!((&mut loading).now_or_never().is_none());
    let coming = router.status().models;
    assert_eq!((coming[0].id.as_str(), coming[0].phase), ("late", Phase::Starting));
    drop(loading);
    say.send(()).unwrap();
    while names(&router).is_empty() {
        std::thread::yield_now();
    }
    assert!(ask(&router, Some("late")).is_ok());
}

#[test]
fn a_model_that_nobody_asks_for_sleeps_until_it_is_asked_for() {
    let gate = Gate::new();
    let busy = scripted("busy").then(Script::new().started().gate(&gate).say("late").finish_and_done());
    let idle = scripted("idle").always(Script::text(&["hello"]));
    let (say, word) = mpsc::channel();
    let shelf = Arc::new(Shelf { word: Some(Mutex::new(word)) });
    let router = Router::with_supply(vec![from(&busy, "busy"), from(&idle, "idle")], shelf);
    let running = ask(&router, Some("busy")).unwrap();
    router.members.rest(LONG);
    assert_eq!(asleep(&router), 0, "they were asked for lately");
    router.members.rest(Duration::ZERO);
    assert_eq!(asleep(&router), 1, "what works does not sleep");
    assert_eq!(names(&router), ["busy", "idle"], "whoever sleeps can be asked for");
    assert_eq!(router.status().models[0].phase, Phase::Stopped);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| ask(&router, Some("idle")).is_ok())).collect();
        say.send(()).unwrap();
        assert!(asked.into_iter().all(|asked| asked.join().unwrap()), "it is woken once for all");
    });
    assert_eq!(asleep(&router), 0);
    gate.open();
    assert!(!block_on(running.collect::<Vec<_>>()).is_empty());
    router.members.rest(Duration::ZERO);
    assert_eq!((asleep(&router), router.status().phase), (2, Phase::Ready));
    say.send(()).unwrap();
    assert!(ask(&router, Some("idle")).is_ok());
    assert_eq!(names(&router), ["busy", "idle"]);
    say.send(()).unwrap();
    assert_eq!(ask(&router, None).unwrap().model, "busy", "who sleeps stays the default");
    router.members.rest(Duration::ZERO);
    unload(&router, "idle", LONG).unwrap();
    assert_eq!(names(&router), ["busy"]);
}

fn relieve(router: &Router, relief: Relief) {
    block_on(router.adjust(Adjustment::Relief(relief))).unwrap();
}

#[test]
fn short_memory_puts_models_to_sleep_that_nobody_uses_and_leaves_one() {
    let gate = Gate::new();
    let busy = scripted("busy").then(Script::new().started().gate(&gate).say("late").finish_and_done());
    let others = ["older", "newer", "fixed"].map(|name| scripted(name).always(Script::text(&["hello"])));
    let mut members: Vec<_> = others.iter().map(|other| from(other, &other.models()[0].id)).collect();
    // It came from nowhere that it could be loaded from again.
    members[2].1 = None;
    members.push(from(&busy, "busy"));
    let router = Router::with_supply(members, Arc::new(Shelf::default()));
    let running = ask(&router, Some("busy")).unwrap();
    drop(ask(&router, Some("newer")));
    let slept = |router: &Router| {
        let asleep = router.status().models.into_iter().filter(|model| model.phase == Phase::Stopped);
        asleep.map(|model| model.id).collect::<Vec<_>>()
    };
    for relief in [Relief::None, Relief::Results, Relief::Pictures, Relief::Prefixes] {
        relieve(&router, relief);
    }
    router.members.spare(LONG);
    assert_eq!(slept(&router), [""; 0], "they were asked for lately");
    router.members.spare(Duration::ZERO);
    assert_eq!(slept(&router), ["older"], "who was asked for the longest ago goes first");
    while slept(&router).len() < 2 {
        relieve(&router, Relief::Hold);
        std::thread::yield_now();
    }
    assert_eq!(slept(&router), ["older", "newer"]);
    router.members.spare(Duration::ZERO);
    assert_eq!(slept(&router), ["older", "newer"], "what works stays, and what could not come back");
    unload(&router, "fixed", LONG).unwrap();
    gate.open();
    drop(block_on(running.collect::<Vec<_>>()));
    router.members.spare(Duration::ZERO);
    assert_eq!(slept(&router), ["older", "newer"], "the last one stays");
    assert_eq!(router.status().sleep, SleepStatus { asleep: 2, idle: 0, short: 2, woken: 0 });
    assert!(ask(&router, Some("newer")).is_ok());
    assert_eq!(router.status().sleep, SleepStatus { asleep: 1, idle: 0, short: 2, woken: 1 });
}

/// Has room for so many models at once, and counts what is there.
struct Narrow {
    room: usize,
    out: Mutex<Vec<(String, Weak<dyn Inference>)>>,
}

impl Narrow {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { room, out: Mutex::default() })
    }

    fn there(&self) -> Vec<String> {
        let mut out = self.out.lock().unwrap();
        out.retain(|(_, model)| model.strong_count() > 0);
        out.iter().map(|(name, _)| name.clone()).collect()
    }

    fn member(&self, name: &str) -> Arc<dyn Inference> {
        let there = self.there();
        assert!(there.len() < self.room, "there is no room for '{name}' beside {there:?}");
        assert!(!there.iter().any(|other| other == name), "'{name}' is loaded twice");
        let member: Arc<dyn Inference> = Arc::new(scripted(name).always(Script::text(&["hello"])));
        self.out.lock().unwrap().push((name.to_owned(), Arc::downgrade(&member)));
        member
    }
}

impl Supply for Narrow {
    fn open(&self, model: &str) -> Result<Arc<dyn Inference>, Refusal> {
        Ok(self.member(model))
    }

    fn has_room(&self, _memory: &MemoryPlan) -> bool {
        self.there().len() < self.room
    }
}

#[test]
fn who_is_woken_takes_the_place_of_one_that_nobody_uses() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let supply = Narrow::new(2);
    let members = ["a", "b"].map(|name| (supply.member(name), Some(name.to_owned())));
    let router = Router::with_supply(members.into(), supply.clone());
    let sleepers = ["c", "d"].map(|name| {
        router.members.rest(Duration::ZERO);
        load(&router, name)
    });
    assert!(sleepers.iter().all(Result::is_ok));
    router.members.rest(Duration::ZERO);
    assert_eq!((asleep(&router), names(&router)), (4, NAMES.map(str::to_owned).into()));
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (router, served) = (&router, &served);
            scope.spawn(move || {
                for turn in 0..25 {
                    let name = NAMES[(first + turn * 3) % 4];
                    match ask(router, Some(name)) {
                        Ok(generation) => {
                            assert_eq!(generation.model, name);
                            assert!(!block_on(generation.collect::<Vec<_>>()).is_empty());
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        // Both that are awake are in use at this moment.
                        Err(Refusal::NotReady { reason }) => {
                            assert_eq!(
                                reason,
                                format!("memory has no room for '{name}' beside what is used now")
                            );
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert!(served.into_inner() > 0);
    // Whoever refused somebody has not lost the model.
    for name in NAMES {
        assert!(ask(&router, Some(name)).is_ok(), "{name}");
        assert!(supply.there().contains(&name.to_owned()));
    }
}
