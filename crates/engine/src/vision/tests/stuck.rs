//! A tower that does not come back from a picture.

use futures::StreamExt;
use futures::executor::block_on;
use protocol::Health;

use super::*;
use crate::Revive;
use crate::tests::watch::Door;

/// Hangs at square pictures as often as its door says.
struct Stuck {
    tower: Box<dyn Tower>,
    door: Arc<Door>,
    square: bool,
}

impl Tower for Stuck {
    fn shape(&self) -> TowerShape {
        self.tower.shape()
    }

    fn twin(&self, kernels: Arc<dyn Kernels>) -> Box<dyn Tower> {
        Box::new(Self { tower: self.tower.twin(kernels), door: Arc::clone(&self.door), square: false })
    }

    fn work(&self, grid: Grid) -> u64 {
        self.tower.work(grid)
    }

    fn begin(&mut self, frame: Frame) -> Result<(), TensorError> {
        self.square = frame.grid.h == frame.grid.w;
        self.tower.begin(frame)
    }

    fn advance(&mut self, work: u64) -> Option<Features> {
        if self.square {
            self.door.pass();
        }
        self.tower.advance(work)
    }

    fn abandon(&mut self) {
        self.tower.abandon();
    }
}

fn model(door: &Arc<Door>) -> LoadedModel {
    let mut model = load();
    model.vision = model.vision.map(|mut vision| {
        vision.tower = Box::new(Stuck { tower: vision.tower, door: Arc::clone(door), square: false });
        vision
    });
    model
}

/// An engine that loads its model again, and what became of requests of which the second and the fifth show a square.
fn serve(hangs: u32) -> (Arc<Engine>, Vec<Transcript>, Arc<Door>) {
    let door = Door::hanging(hangs);
    let again = Arc::clone(&door);
    let settings = EngineSettings {
        restart_after: Some(Duration::from_millis(500)),
        revive: Some(Revive::new(move || Ok(model(&again)))),
        ..narrow(40)
    };
    let engine = Engine::start(model(&door), settings).unwrap();
    let (wide, square) = (picture(40, 24, 1), picture(32, 32, 2));
    let shown: [&[Image]; 6] = [
        std::slice::from_ref(&wide),
        std::slice::from_ref(&square),
        &[],
        &[picture(64, 32, 3)],
        &[wide.clone(), square.clone()],
        &[],
    ];
    let requests = shown.iter().zip(0..).map(|(images, seed)| showing(images, seed));
    let heard = block_on(async {
        let asked = futures::future::join_all(requests.map(|request| engine.generate(request))).await;
        let heard = asked.into_iter().map(|asked| asked.unwrap().collect::<Vec<_>>());
        futures::future::join_all(heard).await
    });
    (engine, heard.iter().map(|heard| Transcript::of(heard)).collect(), door)
}

#[test]
fn a_tower_that_does_not_come_back_is_loaded_again_and_nothing_is_lost() {
    let (_, expected, _) = serve(0);
    let (engine, heard, door) = serve(1);
    assert_eq!(heard, expected, "the same bits for all, those included whose picture was in hand");
    assert!(heard.iter().all(|heard| matches!(heard.end, Some(Event::Done { .. }))));
    let status = engine.status();
    assert!(status.counters.restarts >= 1);
    assert!(matches!(&status.health, Health::Degraded(why) if why[0].contains("loaded again")));
    drop(engine);
    // What was left behind ends when the tower comes back after all, and frees what it held.
    door.open();
    let is_alone = |_| {
        std::thread::yield_now();
        Arc::strong_count(&door) == 1
    };
    assert!((0..50_000_000).any(is_alone), "somebody still has the tower");
}

#[test]
fn a_picture_that_hangs_the_tower_every_time_fails_its_own_requests_only() {
    let (_, expected, _) = serve(0);
    let (_engine, heard, door) = serve(u32::MAX);
    for (at, (heard, expected)) in heard.iter().zip(&expected).enumerate() {
        match &heard.end {
            Some(Event::Failed(Failure::Engine { message })) if [1, 4].contains(&at) => {
                assert!(message.contains("did not come back"), "{message}");
            }
            _ => assert!(![1, 4].contains(&at) && heard == expected, "{at}: {heard:?}"),
        }
    }
    door.open();
}
