//! Pipelines and items drawn at random: each item ends as a plain calculation says, and nothing is left.

use proptest::prelude::*;

use super::*;
use crate::retry::Retry;

/// How a stage is built, and how long it takes.
#[derive(Clone, Debug)]
struct Plan {
    workers: usize,
    buffer: usize,
    attempts: u32,
    takes: u64,
}

/// What a stage does with an item whose fate in it is this number.
const TRANSIENT: u8 = 1;
const PERMANENT: u8 = 2;
const PANIC: u8 = 3;

fn plan() -> impl Strategy<Value = Plan> {
    (1..6usize, 1..4usize, 1..4u32, 0..4u64).prop_map(|(workers, buffer, attempts, takes)| Plan {
        workers,
        buffer,
        attempts,
        takes,
    })
}

/// The item is the list of its fates, stage by stage: the lower two bits say how it fails, the others how often.
type Fates = [u8; 3];

async fn step(fates: Fates, stage: usize, takes: u64, tries: Arc<AtomicUsize>) -> Result<Fates, Classed> {
    let attempt = tries.fetch_add(1, SeqCst) + 1;
    if takes > 0 {
        tokio::time::sleep(ms(takes)).await;
    }
    match fates[stage] & 3 {
        TRANSIENT if attempt <= usize::from(fates[stage] >> 2) => Err(Classed::transient("transient")),
        PERMANENT => Err(Classed::permanent("permanent")),
        PANIC => panic!("panic"),
        _ => Ok(fates),
    }
}

/// What must come of an item: the stage in which it ends and how, or that it comes out.
fn expected(plans: &[Plan; 3], fates: Fates) -> String {
    for (stage, plan) in plans.iter().enumerate() {
        match fates[stage] & 3 {
            TRANSIENT if u32::from(fates[stage] >> 2) >= plan.attempts => {
                return format!("stage '{stage}' failed at attempt {}: transient", plan.attempts);
            }
            PERMANENT => return format!("stage '{stage}' failed at attempt 1: permanent"),
            PANIC => return format!("stage '{stage}' panicked: panic"),
            _ => {}
        }
    }
    "out".to_owned()
}

/// An item on its way through, which counts its tries in each stage.
type Tried = (Fates, [Arc<AtomicUsize>; 3]);

fn build(plans: &[Plan; 3], credits: u32) -> Pipeline<Tried, Tried> {
    let stage = |stage: usize| {
        let takes = plans[stage].takes;
        move |(fates, tries): Tried| async move {
            let fates = step(fates, stage, takes, tries[stage].clone()).await?;
            Ok::<_, Classed>((fates, tries))
        }
    };
    let retry = |stage: usize| Retry::exponential(ms(2), ms(8)).attempts(plans[stage].attempts);
    Pipeline::builder()
        .credits(credits)
        .stage("0", stage(0))
        .workers(plans[0].workers)
        .retry(retry(0))
        .stage("1", stage(1))
        .workers(plans[1].workers)
        .buffer(plans[1].buffer)
        .retry(retry(1))
        .stage("2", stage(2))
        .workers(plans[2].workers)
        .buffer(plans[2].buffer)
        .retry(retry(2))
        .build()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_item_ends_as_calculated(
        plans in [plan(), plan(), plan()],
        credits in 1..20u32,
        items in prop::collection::vec(any::<[u8; 3]>().prop_map(|fates| fates.map(|fate| fate & 15)), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let outcomes: Vec<String> = runtime.block_on(async {
            let pipeline = build(&plans, credits);
            let items: Vec<Tried> = items.iter().map(|fates| (*fates, Default::default())).collect();
            let run = pipeline.run(stream::iter(items)).ordered();
            let outcomes = run.map(|out| out.map_or_else(|failure| failure.to_string(), |_| "out".to_owned()));
            let outcomes = outcomes.collect().await;
            assert_quiet(&pipeline);
            outcomes
        });
        let wanted: Vec<String> = items.iter().map(|fates| expected(&plans, *fates)).collect();
        prop_assert_eq!(outcomes, wanted);
    }
}
