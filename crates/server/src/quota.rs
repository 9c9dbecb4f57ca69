//! What one tenant may take, so that there is room for the others: requests in a time, tokens in a time, and requests
//! at once.
//!
//! A request is counted when it comes, before its body is read. Its tokens are charged by an estimate when it has been
//! read, and settled by what it took when it has ended, however that was; until then the estimate keeps a tenant from
//! having many requests accepted of which only the last one would be one too many. What is turned away here takes
//! nothing.

mod estimate;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use flow::queue::Rate;
use flow::rate::{DrainRate, TokenBucket};
use protocol::TenantId;
use tokio::time::Instant;

use crate::failure::whole_seconds;

pub(crate) use estimate::Estimate;

/// What tenants may take; nothing is limited by default.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    /// How often a tenant may ask.
    pub requests: PerTenant<Rate>,
    /// How many tokens its requests may read and write.
    pub tokens: PerTenant<Rate>,
    /// How many of its requests may be unfinished.
    pub at_once: PerTenant<NonZeroU32>,
}

/// A limit for everyone, and those of tenants that have their own.
#[derive(Clone, Debug)]
pub struct PerTenant<T> {
    everyone: Option<T>,
    named: HashMap<String, T>,
}

impl<T> Default for PerTenant<T> {
    fn default() -> Self {
        Self { everyone: None, named: HashMap::new() }
    }
}

impl<T> FromIterator<(Option<String>, T)> for PerTenant<T> {
    /// A limit without a name is everyone's. Of several with one name, the last one counts.
    fn from_iter<I: IntoIterator<Item = (Option<String>, T)>>(limits: I) -> Self {
        limits.into_iter().fold(Self::default(), |mut all, (tenant, limit)| {
            match tenant {
                Some(tenant) => _ = all.named.insert(tenant, limit),
                None => all.everyone = Some(limit),
            }
            all
        })
    }
}

impl<T> PerTenant<T> {
    fn of(&self, tenant: &TenantId) -> Option<&T> {
        self.named.get(&tenant.0).or(self.everyone.as_ref())
    }
}

/// A request that was turned away, because its tenant has taken what it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exceeded {
    #[error(
        "the tenant '{tenant}' may send {limit} requests in {} s and has sent them; try again in {} s",
        per.as_secs(), whole_seconds(*retry_after)
    )]
    Requests { tenant: String, limit: u32, per: Duration, retry_after: Duration },
    #[error(
        "the tenant '{tenant}' may use {limit} tokens in {} s, of which {left} are left, and this request needs about {needed}; try again in {} s",
        per.as_secs(), whole_seconds(*retry_after)
    )]
    Tokens { tenant: String, limit: u32, per: Duration, left: u32, needed: u32, retry_after: Duration },
    #[error(
        "the tenant '{tenant}' may have {limit} requests at once and has them; try again in {} s",
        whole_seconds(*retry_after)
    )]
    AtOnce { tenant: String, limit: u32, retry_after: Duration },
}

impl Exceeded {
    pub(crate) fn retry_after(&self) -> Duration {
        let (Self::Requests { retry_after, .. }
        | Self::Tokens { retry_after, .. }
        | Self::AtOnce { retry_after, .. }) = self;
        *retry_after
    }
}

/// What every tenant has taken. Tenants are those that the keys name, so there is no bound to set.
pub(crate) struct Accounts {
    quotas: Quotas,
    opened: Instant,
    accounts: Mutex<HashMap<TenantId, Account>>,
}

struct Account {
    requests: Option<(TokenBucket, Duration)>,
    tokens: Option<(TokenBucket, Duration)>,
    at_once: Option<NonZeroU32>,
    /// Requests that have not ended.
    inside: u32,
    /// How fast they end.
    ends: DrainRate,
    /// Tokens of a reply whose length was left open, on average; recent ones count more.
    reply: f64,
    totals: Totals,
}

/// What has become of a tenant's requests since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Tokens that were read.
    pub(crate) read: u64,
    /// Tokens that were written.
    pub(crate) written: u64,
    /// Requests that were turned away for the number of requests in a time.
    pub(crate) over_requests: u64,
    /// The same for tokens.
    pub(crate) over_tokens: u64,
    /// The same for requests at once.
    pub(crate) over_at_once: u64,
}

/// What a reply whose length is left open is taken for before there has been one.
const FIRST_REPLY: f64 = 256.0;

/// The weight of the latest reply in the average.
const LATEST: f64 = 0.125;

/// Over this time is measured how fast requests end.
const WINDOW: Duration = Duration::from_secs(60);

impl Accounts {
    pub(crate) fn new(quotas: Quotas) -> Self {
        Self { quotas, opened: Instant::now(), accounts: Mutex::default() }
    }

    /// Lets one more request of that tenant in.
    pub(crate) fn enter(self: &Arc<Self>, tenant: &TenantId) -> Result<Stay, Exceeded> {
        self.with(tenant, |account, now| account.enter(tenant, now))?;
        Ok(Stay {
            accounts: Arc::clone(self),
            tenant: tenant.clone(),
            charged: 0,
            open: 0,
            took: Took::default(),
        })
    }

    /// Tells a client where it stands, in the headers that client libraries of the OpenAI dialect know.
    pub(crate) fn tell(&self, tenant: &TenantId, headers: &mut HeaderMap) {
        self.with(tenant, |account, now| {
            let buckets = [("requests", &account.requests), ("tokens", &account.tokens)];
            for (what, bucket) in buckets {
                if let Some((bucket, _)) = bucket {
                    standing::tell(what, bucket, now, headers);
                }
            }
        });
    }

    /// What has become of the requests of each tenant that has come, by name.
    pub(crate) fn totals(&self) -> Vec<(String, Totals)> {
        let accounts = self.lock();
        let mut totals: Vec<_> =
            accounts.iter().map(|(tenant, account)| (tenant.0.clone(), account.totals)).collect();
        totals.sort_by(|a, b| a.0.cmp(&b.0));
        totals
    }

    fn with<T>(&self, tenant: &TenantId, act: impl FnOnce(&mut Account, Duration) -> T) -> T {
        let now = self.opened.elapsed();
        let mut accounts = self.lock();
        match accounts.get_mut(tenant) {
            Some(account) => act(account, now),
            None => {
                act(accounts.entry(tenant.clone()).or_insert(Account::of(tenant, &self.quotas, now)), now)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Account>> {
        // Nothing that could panic runs under the lock between two changes that belong together.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn of(tenant: &TenantId, quotas: &Quotas, now: Duration) -> Self {
        let bucket = |rate: &Rate| (rate.bucket(), rate.per());
        Self {
            requests: quotas.requests.of(tenant).map(bucket),
            tokens: quotas.tokens.of(tenant).map(bucket),
            at_once: quotas.at_once.of(tenant).copied(),
            inside: 0,
            ends: DrainRate::new(WINDOW, now),
            reply: FIRST_REPLY,
            totals: Totals::default(),
        }
    }

    fn enter(&mut self, tenant: &TenantId, now: Duration) -> Result<(), Exceeded> {
        if self.inside == 0 {
            self.ends.idle(now);
        }
        let named = || tenant.0.clone();
        if let Some(limit) = self.at_once.filter(|limit| self.inside >= limit.get()) {
            self.totals.over_at_once += 1;
            let retry_after = self.ends.retry_after(1, now);
            return Err(Exceeded::AtOnce { tenant: named(), limit: limit.get(), retry_after });
        }
        if let Some((bucket, per)) = &mut self.requests {
            let (limit, per) = (bucket.burst(), *per);
            if let Err(retry_after) = bucket.try_take(now, 1) {
                self.totals.over_requests += 1;
                return Err(Exceeded::Requests { tenant: named(), limit, per, retry_after });
            }
        }
        self.inside += 1;
        Ok(())
    }

    /// Charges what a request is likely to take, and says how much that is.
    fn charge(&mut self, tenant: &TenantId, estimate: Estimate, now: Duration) -> Result<u32, Exceeded> {
        let Some((bucket, per)) = &mut self.tokens else { return Ok(0) };
        let open = (f64::from(estimate.open) * self.reply) as u32;
        let needed = estimate.known.saturating_add(open);
        let Err(retry_after) = bucket.try_take_owing(now, needed) else { return Ok(needed) };
        if let Some((requests, _)) = &mut self.requests {
            requests.give_back(1);
        }
        self.totals.over_tokens += 1;
        let (limit, left) = (bucket.burst(), bucket.available(now));
        Err(Exceeded::Tokens { tenant: tenant.0.clone(), limit, per: *per, left, needed, retry_after })
    }

    fn leave(&mut self, stay: &Stay, now: Duration) {
        self.inside = self.inside.saturating_sub(1);
        self.ends.record(1, now);
        self.totals.read += u64::from(stay.took.read);
        self.totals.written += u64::from(stay.took.written);
        if stay.open > 0 && stay.took.written > 0 {
            let reply = f64::from(stay.took.written) / f64::from(stay.open);
            self.reply += LATEST * (reply - self.reply);
        }
        let Some((bucket, _)) = &mut self.tokens else { return };
        let took = stay.took.read.saturating_add(stay.took.written);
        match took.checked_sub(stay.charged) {
            Some(more) => bucket.owe(now, more),
            None => bucket.give_back(stay.charged - took),
        }
    }
}

/// Tokens that a request has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) read: u32,
    pub(crate) written: u32,
}

/// A request that was let in. Dropping it lets the next one in, and takes it that it took no tokens unless it was settled.
pub(crate) struct Stay {
    accounts: Arc<Accounts>,
    tenant: TenantId,
    charged: u32,
    /// Replies whose length was left open.
    open: u32,
    took: Took,
}

impl Stay {
    /// Charges what the request is likely to take.
    pub(crate) fn charge(&mut self, estimate: Estimate) -> Result<(), Exceeded> {
        let Self { accounts, tenant, .. } = &*self;
        self.charged = accounts.with(tenant, |account, now| account.charge(tenant, estimate, now))?;
        self.open = estimate.open;
        Ok(())
    }

    /// Ends it, with what it took.
    pub(crate) fn settle(mut self, took: Took) {
        self.took = took;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.accounts.with(&self.tenant, |account, now| account.leave(self, now));
    }
}
