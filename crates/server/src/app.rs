//! What every endpoint may reach: the inference, the settings, the counters, and where the server is in its life.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocol::status::Task;
use protocol::{Inference, ModelCard};
use tokio::sync::watch;

use crate::Settings;
use crate::fetch::Fetcher;
use crate::metrics::Metrics;
use crate::quota::Accounts;

pub(crate) struct App {
    pub(crate) inference: Arc<dyn Inference>,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) fetcher: Fetcher,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) started: Instant,
    ids: Ids,
}

/// Where the server is in its life. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Stage {
    /// Work is taken.
    Serving,
    /// No new work is taken; what was taken goes on.
    Draining,
    /// The time for draining is over: streams that still run are told so and end.
    Leaving,
}

impl App {
    pub(crate) fn new(inference: Arc<dyn Inference>, settings: Settings) -> Self {
        let accounts = Arc::new(Accounts::new(settings.quotas.clone()));
        let metrics = Metrics::new(Arc::clone(&inference), Arc::clone(&accounts), settings.aliases);
        let stage = watch::Sender::new(Stage::Serving);
        let fetcher = Fetcher::new(settings.fetching.clone());
        let (started, ids) = (Instant::now(), Ids::default());
        Self { inference, settings, metrics, accounts, fetcher, stage, started, ids }
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// A name that no other request of this or another process has: `prefix` and 32 hexadecimal digits.
    pub(crate) fn fresh_id(&self, prefix: &str) -> String {
        let [high, low] = self.ids.next();
        format!("{prefix}{high:016x}{low:016x}")
    }

    /// The model of that name, or the one that generates by default.
    pub(crate) fn card(&self, model: Option<&str>) -> Option<ModelCard> {
        let asked_for = |card: &ModelCard| match model {
            Some(model) => card.id == model,
            None => card.tasks.contains(&Task::Generate),
        };
        self.inference.models().into_iter().find(asked_for)
    }

    /// Changes with everything that decides which text a seed gives, as far as the model card tells.
    pub(crate) fn fingerprint(&self, model: &str) -> String {
        let told = self.card(Some(model)).map_or_else(String::new, |card| told(&card));
        // FNV-1a, because the standard hasher may change from one release of the language to the next.
        let hash = told.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("fp_{:010x}", hash >> 24)
    }
}

fn told(card: &ModelCard) -> String {
    let ModelCard { id, family, context, vocabulary, parameters, dtype, .. } = card;
    format!("{}/{id}/{family}/{context}/{vocabulary}/{parameters}/{dtype}", env!("CARGO_PKG_VERSION"))
}

/// Unix time in whole seconds.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Names are only required to differ, not to be hard to guess, so the randomness that the standard library draws for
/// its hash tables is enough.
#[derive(Default)]
struct Ids {
    high: RandomState,
    low: RandomState,
    count: AtomicU64,
}

impl Ids {
    fn next(&self) -> [u64; 2] {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        [self.high.hash_one(count), self.low.hash_one(count)]
    }
}
