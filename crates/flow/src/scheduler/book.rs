//! What to start next: the scheduler without waiting, threads and clock.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Rules;
use super::inventory::{Device, Inventory, InventoryError, Key};
use super::ledger::{Charge, Ledger, Room, Since, share};
use super::needs::{Needs, NeedsError};
use super::status::{DeviceStatus, ResourceStatus};
use super::waiting::{Job, JobId, Order, Waiting};
use crate::random::Random;

/// What a piece of work got. It must be given back to the book that granted it.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) job: JobId,
    owner: Arc<str>,
    charges: Vec<Charge>,
    /// The devices of them.
    pub(super) devices: Vec<Arc<str>>,
    /// How many were granted before.
    serial: u64,
}

/// What an owner has.
#[derive(Debug)]
struct Owner {
    /// By key of the ledger.
    reserved: Vec<u64>,
    running: usize,
}

/// The first in line for whom room is kept.
#[derive(Clone, Copy, Debug)]
struct Claim {
    job: JobId,
    /// What was granted from this serial on came after the claim.
    serial: u64,
}

#[derive(Debug)]
pub(super) struct Book {
    rules: Rules,
    ledger: Ledger,
    waiting: Waiting,
    owners: BTreeMap<Arc<str>, Owner>,
    weights: BTreeMap<Arc<str>, f64>,
    claim: Option<Claim>,
    next_job: u64,
    next_serial: u64,
    running: usize,
}

impl Book {
    pub(super) fn new(inventory: &Inventory, rules: Rules) -> Result<Self, InventoryError> {
        Ok(Self {
            rules,
            ledger: Ledger::new(inventory, rules.balance, Random::seeded(rules.seed))?,
            waiting: Waiting::default(),
            owners: BTreeMap::new(),
            weights: BTreeMap::new(),
            claim: None,
            next_job: 0,
            next_serial: 0,
            running: 0,
        })
    }

    pub(super) fn keys(&self) -> &[Key] {
        self.ledger.keys()
    }

    /// Whether that could ever run here.
    pub(super) fn check(&self, needs: &Needs) -> Result<(), NeedsError> {
        self.ledger.check(&self.ledger.demand(needs)?)
    }

    /// A piece of work comes and waits; refused if it could never run.
    pub(super) fn ask(
        &mut self,
        needs: &Needs,
        owner: &Arc<str>,
        level: u8,
        now: Duration,
    ) -> Result<JobId, NeedsError> {
        let demand = self.ledger.demand(needs)?;
        self.ledger.check(&demand)?;
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.waiting.insert(id, Job { demand, owner: Arc::clone(owner), level, arrived: now });
        Ok(id)
    }

    /// A piece of work does not want to wait any longer. Answers whether it still waited.
    pub(super) fn leave(&mut self, id: JobId) -> bool {
        if self.claim.is_some_and(|claim| claim.job == id) {
            self.drop_claim();
        }
        self.waiting.remove(id).is_some()
    }

    /// Grants as much as can be granted, to at most `most` pieces of work.
    ///
    /// Smaller work overtakes larger work that does not fit yet. Once the first in line has waited for the `patience`
    /// of the rules, room is kept for it: what overtakes it from then on must leave it what it will need when all that
    /// runs now has ended.
    pub(super) fn start(&mut self, now: Duration, most: usize) -> Vec<Placement> {
        let mut started = Vec::new();
        if most > 0
            && let Some(claim) = self.claim
            && let Some(placement) = self.grant(claim.job, Room::Free)
        {
            started.push(placement);
        }
        let mut order =
            Order::of(&self.waiting, now, self.rules.age_step, |owner| self.dominant_share(owner));
        let mut passed_over = 0;
        while started.len() < most && passed_over < self.rules.look_ahead.max(1) {
            let Some(id) = order.next(&self.waiting, |owner| self.dominant_share(owner)) else { break };
            if let Some(placement) = self.grant(id, Room::BesideClaim) {
                started.push(placement);
                continue;
            }
            passed_over += 1;
            if self.claim.is_none() {
                self.claim_if_patient_enough(id, now);
            }
        }
        started
    }

    /// Work has ended.
    pub(super) fn give_back(&mut self, placement: &Placement) {
        let is_late = self.claim.is_some_and(|claim| placement.serial >= claim.serial);
        let since = if is_late { Since::Claim } else { Since::Before };
        self.ledger.give_back(&placement.charges, since);
        self.running -= 1;
        if let Some(owner) = self.owners.get_mut(&placement.owner) {
            for Charge { key, amount, .. } in &placement.charges {
                owner.reserved[*key] = owner.reserved[*key].saturating_sub(*amount);
            }
            owner.running -= 1;
            if owner.running == 0 {
                self.owners.remove(&placement.owner);
            }
        }
    }

    pub(super) fn set_weight(&mut self, owner: &str, weight: f64) {
        self.weights.insert(owner.into(), weight.max(f64::MIN_POSITIVE));
    }

    pub(super) fn set_capacity(&mut self, name: &str, amount: u64) -> Result<Vec<Lost>, InventoryError> {
        self.ledger.set_capacity(name, amount)?;
        Ok(self.review())
    }

    pub(super) fn add_device(&mut self, device: &Device) -> Result<Vec<Lost>, InventoryError> {
        self.ledger.add_device(device)?;
        for owner in self.owners.values_mut() {
            owner.reserved.resize(self.ledger.keys().len(), 0);
        }
        Ok(self.review())
    }

    pub(super) fn retire_device(&mut self, name: &str) -> Result<Vec<Lost>, InventoryError> {
        self.ledger.retire_device(name)?;
        Ok(self.review())
    }

    /// The capacity has changed: takes out the work that cannot run any more, and forgets for whom room was kept where.
    fn review(&mut self) -> Vec<Lost> {
        self.drop_claim();
        let lost =
            self.waiting.iter().filter_map(|(id, job)| Some((id, self.ledger.check(&job.demand).err()?)));
        let lost: Vec<Lost> = lost.collect();
        for (id, _) in &lost {
            self.waiting.remove(*id);
        }
        lost
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// How many were ever granted.
    pub(super) fn started(&self) -> u64 {
        self.next_serial
    }

    pub(super) fn oldest_arrival(&self) -> Option<Duration> {
        self.waiting.oldest()
    }

    pub(super) fn resources(&self) -> (Vec<ResourceStatus>, Vec<DeviceStatus>) {
        self.ledger.status()
    }

    /// The largest share of anything by owner.
    pub(super) fn shares(&self) -> Vec<(Arc<str>, f64)> {
        let mut shares: BTreeMap<Arc<str>, f64> =
            self.waiting.owners().map(|owner| (Arc::clone(owner), 0.0)).collect();
        for (name, owner) in &self.owners {
            shares.insert(Arc::clone(name), self.largest_share(owner));
        }
        shares.into_iter().collect()
    }

    fn largest_share(&self, owner: &Owner) -> f64 {
        let shares = owner.reserved.iter().enumerate();
        shares.map(|(key, part)| share(*part, self.ledger.total(key))).fold(0.0, f64::max)
    }

    fn dominant_share(&self, owner: &str) -> f64 {
        let weight = self.weights.get(owner).copied().unwrap_or(1.0);
        self.owners.get(owner).map_or(0.0, |owner| self.largest_share(owner) / weight)
    }

    fn grant(&mut self, id: JobId, room: Room) -> Option<Placement> {
        let charges = self.ledger.place(&self.waiting.get(id)?.demand, room)?;
        let job = self.waiting.remove(id)?;
        if self.claim.is_some_and(|claim| claim.job == id) {
            self.drop_claim();
        }
        self.ledger.reserve(&charges);
        let keys = self.ledger.keys().len();
        let new = || Owner { reserved: vec![0; keys], running: 0 };
        let owner = self.owners.entry(Arc::clone(&job.owner)).or_insert_with(new);
        for Charge { key, amount, .. } in &charges {
            owner.reserved[*key] += amount;
        }
        owner.running += 1;
        self.running += 1;
        let serial = self.next_serial;
        self.next_serial += 1;
        let devices = self.ledger.devices_in(&charges);
        Some(Placement { job: id, owner: job.owner, charges, devices, serial })
    }

    fn claim_if_patient_enough(&mut self, id: JobId, now: Duration) {
        let Some(job) = self.waiting.get(id) else { return };
        if now.saturating_sub(job.arrived) >= self.rules.patience {
            self.ledger.claim(&job.demand);
            self.claim = Some(Claim { job: id, serial: self.next_serial });
        }
    }

    fn drop_claim(&mut self) {
        self.claim = None;
        self.ledger.release_claim();
    }
}

/// A piece of work that waited and cannot run any more, and why.
pub(super) type Lost = (JobId, NeedsError);
