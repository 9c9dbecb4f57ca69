//! The rate at which a queue takes items: of all owners together, and of each.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::Owner;
use crate::rate::TokenBucket;

/// So many owners are remembered before the idle ones among them are looked for.
const MANY: usize = 1024;

/// So many items per time, and so many at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    items: NonZeroU32,
    per: Duration,
    burst: NonZeroU32,
}

impl Rate {
    /// So many items per second, evenly.
    pub fn per_second(items: NonZeroU32) -> Self {
        Self::new(items, Duration::from_secs(1))
    }

    /// So many items in that time, evenly.
    pub fn new(items: NonZeroU32, per: Duration) -> Self {
        Self { items, per, burst: NonZeroU32::MIN }
    }

    /// The same, but so many may come at once after a quiet time.
    #[must_use]
    pub fn burst(mut self, burst: NonZeroU32) -> Self {
        self.burst = burst;
        self
    }

    /// The time in which that many items pass.
    pub fn per(&self) -> Duration {
        self.per
    }

    /// A full bucket of this rate.
    pub fn bucket(&self) -> TokenBucket {
        TokenBucket::new(self.items, self.per, self.burst)
    }

    /// The time between two items at an even pace.
    fn step(&self) -> Duration {
        self.per / self.items.get()
    }
}

/// The rates of a queue. Both may be changed at any time; buckets then begin full.
#[derive(Default)]
pub(super) struct Throttle {
    all: Option<TokenBucket>,
    each: Option<Each>,
}

struct Each {
    rate: Rate,
    owners: HashMap<Owner, Account>,
    /// Idle owners are forgotten when there are more than that.
    many: usize,
}

struct Account {
    bucket: TokenBucket,
    /// How many items were told to come back for their token.
    waiting: u32,
}

/// What keeps an item out, and for how long at least.
pub(super) enum Brake {
    /// The rate of all, which stops everyone.
    All(Duration),
    /// The rate of its owner, which stops only that one.
    Owner(Duration),
}

impl Brake {
    pub(super) fn wait(&self) -> Duration {
        let (Self::All(wait) | Self::Owner(wait)) = self;
        *wait
    }
}

impl Throttle {
    pub(super) fn limit_all(&mut self, rate: Option<Rate>) {
        self.all = rate.map(|rate| rate.bucket());
    }

    pub(super) fn limit_each(&mut self, rate: Option<Rate>) {
        self.each = rate.map(|rate| Each { rate, owners: HashMap::new(), many: MANY });
    }

    /// Whether there is no limit.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.all.is_none() && self.each.is_none()
    }

    /// Lets one item pass; `is_back` is one that was told before to come back for its token.
    pub(super) fn pass(&mut self, owner: &Owner, now: Duration, queueing: Queueing) -> Result<(), Brake> {
        let Self { all, each } = self;
        let Some(each) = each else {
            return all.as_mut().map_or(Ok(()), |all| all.try_take(now, 1).map_err(Brake::All));
        };
        let rate = each.rate;
        let owner = each.owner(owner, now);
        if let Queueing::New = queueing
            && owner.waiting > 0
        {
            let own = owner.bucket.clone().try_take(now, 1).err().unwrap_or_default();
            return Err(Brake::Owner(own.saturating_add(rate.step().saturating_mul(owner.waiting))));
        }
        let mut bucket = owner.bucket.clone();
        bucket.try_take(now, 1).map_err(Brake::Owner)?;
        if let Some(all) = all {
            all.try_take(now, 1).map_err(Brake::All)?;
        }
        owner.bucket = bucket;
        Ok(())
    }

    /// One more, or one less, item of that owner waits for its token.
    pub(super) fn wait(&mut self, owner: &Owner, now: Duration) {
        if let Some(each) = &mut self.each {
            each.owner(owner, now).waiting += 1;
        }
    }

    pub(super) fn wait_no_more(&mut self, owner: &Owner) {
        if let Some(owner) = self.each.as_mut().and_then(|each| each.owners.get_mut(owner)) {
            owner.waiting = owner.waiting.saturating_sub(1);
        }
    }
}

/// Whether an item was told before to come back for its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queueing {
    New,
    Back,
}

impl Each {
    fn owner(&mut self, name: &Owner, now: Duration) -> &mut Account {
        if self.owners.len() >= self.many && !self.owners.contains_key(name) {
            let burst = self.rate.burst.get();
            self.owners
                .retain(|_, owner| owner.waiting > 0 || owner.bucket.clone().try_take(now, burst).is_err());
            self.many = (2 * self.owners.len()).max(MANY);
        }
        let account = || Account { bucket: self.rate.bucket(), waiting: 0 };
        self.owners.entry(name.clone()).or_insert_with(account)
    }
}
