//! Who has how much of what. Nothing is ever reserved that is not there.

use std::sync::Arc;

use super::balance::{Balance, Candidate};
use super::inventory::{Device, Inventory, InventoryError, Key, Quantity, WHOLE, add_keys};
use super::needs::{Needs, NeedsError, find};
use super::status::{DeviceStatus, ResourceStatus};
use crate::random::Random;

/// Where the machine stands among the places; devices follow.
const MACHINE: usize = 0;

/// Something that has resources of its own: the machine or a device. Amounts are in the order of the ledger's keys.
#[derive(Debug)]
struct Place {
    name: Arc<str>,
    /// `None` for the machine.
    kind: Option<Arc<str>>,
    capacity: Vec<u64>,
    reserved: Vec<u64>,
    /// What the claim will need here.
    claimed: Vec<u64>,
    /// What work has reserved that was started since the claim.
    late: Vec<u64>,
    grants: u64,
    is_retired: bool,
}

impl Place {
    fn new(name: Arc<str>, kind: Option<Arc<str>>) -> Self {
        let none = Vec::new();
        let (capacity, reserved, claimed, late) = (none.clone(), none.clone(), none.clone(), none);
        Self { name, kind, capacity, reserved, claimed, late, grants: 0, is_retired: false }
    }

    fn load(&self) -> f64 {
        let shares = self.reserved.iter().zip(&self.capacity).map(|(used, all)| share(*used, *all));
        shares.fold(0.0, f64::max)
    }
}

pub(super) fn share(part: u64, all: u64) -> f64 {
    if part == 0 { 0.0 } else { part as f64 / all.max(1) as f64 }
}

/// Needs in terms of the ledger's keys, nothing of which is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    machine: Vec<(usize, u64)>,
    devices: Vec<DeviceDemand>,
}

/// What is needed of a kind of device, on each of so many.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DeviceDemand {
    kind: Arc<str>,
    count: usize,
    each: Vec<(usize, u64)>,
}

/// So much of one thing in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    place: usize,
    pub(super) key: usize,
    pub(super) amount: u64,
}

/// What may be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Whatever is free.
    Free,
    /// What is free and leaves the claim what it will need once all that ran before it has ended.
    BesideClaim,
}

/// Capacities and reservations by place.
#[derive(Debug)]
pub(super) struct Ledger {
    keys: Vec<Key>,
    places: Vec<Place>,
    balance: Balance,
    random: Random,
}

impl Ledger {
    pub(super) fn new(
        inventory: &Inventory,
        balance: Balance,
        random: Random,
    ) -> Result<Self, InventoryError> {
        inventory.check()?;
        let machine = Place::new("machine".into(), None);
        let mut ledger = Self { keys: inventory.keys(), places: vec![machine], balance, random };
        ledger.widen();
        for (name, has) in &inventory.resources {
            ledger.set_capacity(name, has.amount)?;
        }
        for device in &inventory.devices {
            ledger.add_device(device)?;
        }
        Ok(ledger)
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Changes how much the machine has of something. What is reserved beyond it stays so until it is given back.
    pub(super) fn set_capacity(&mut self, name: &str, amount: u64) -> Result<(), InventoryError> {
        let key = self.keys.iter().position(|key| key.kind.is_none() && *key.name == *name);
        let key = key.ok_or_else(|| InventoryError::Unknown { name: name.to_owned() })?;
        self.places[MACHINE].capacity[key] = amount;
        Ok(())
    }

    /// Adds a device, or takes one back into service that was retired.
    pub(super) fn add_device(&mut self, device: &Device) -> Result<(), InventoryError> {
        let known = self.places.iter().position(|place| place.kind.is_some() && place.name == device.name);
        if known.is_some_and(|place| !self.places[place].is_retired) {
            return Err(InventoryError::SameName { name: device.name.to_string() });
        }
        let machine_has =
            |name: &Arc<str>| self.keys.iter().any(|key| key.kind.is_none() && key.name == *name);
        if let Some((key, _)) = device.keys().find(|(name, _)| machine_has(name)) {
            return Err(InventoryError::Ambiguous { key: key.to_string() });
        }
        add_keys(&mut self.keys, device);
        let place = known.unwrap_or_else(|| {
            let kind = Some(Arc::clone(&device.kind));
            self.places.push(Place::new(Arc::clone(&device.name), kind));
            self.places.len() - 1
        });
        self.widen();
        let has: Vec<(Arc<str>, Quantity)> = device.keys().collect();
        let amount =
            |key: &Key| has.iter().find(|(name, _)| *name == key.name).map_or(0, |(_, has)| has.amount);
        let place = &mut self.places[place];
        place.capacity = self.keys.iter().map(amount).collect();
        place.kind = Some(Arc::clone(&device.kind));
        place.is_retired = false;
        Ok(())
    }

    /// Gives a device no more work; what runs there goes on.
    pub(super) fn retire_device(&mut self, name: &str) -> Result<(), InventoryError> {
        let found = self.places.iter_mut().find(|place| place.kind.is_some() && *place.name == *name);
        let found = found.filter(|place| !place.is_retired);
        found.ok_or_else(|| InventoryError::Unknown { name: name.to_owned() })?.is_retired = true;
        Ok(())
    }

    /// Makes room for keys that are new.
    fn widen(&mut self) {
        for place in &mut self.places {
            for amounts in [&mut place.capacity, &mut place.reserved, &mut place.claimed, &mut place.late] {
                amounts.resize(self.keys.len(), 0);
            }
        }
    }

    /// Reads needs.
    pub(super) fn demand(&self, needs: &Needs) -> Result<Demand, NeedsError> {
        let mut demand = Demand { machine: Vec::new(), devices: Vec::new() };
        for (name, amount) in needs.iter() {
            let key = find(&self.keys, name)?;
            let index = self.keys.iter().position(|other| other == key).unwrap_or_default();
            let Some(kind) = &key.kind else {
                demand.machine.push((index, amount));
                continue;
            };
            let known = demand.devices.iter().position(|device| device.kind == *kind);
            let place = known.unwrap_or_else(|| {
                demand.devices.push(DeviceDemand { kind: Arc::clone(kind), count: 1, each: Vec::new() });
                demand.devices.len() - 1
            });
            let device = &mut demand.devices[place];
            if key.is_device() && amount > WHOLE {
                if amount % WHOLE != 0 {
                    return Err(NeedsError::BrokenDevices { kind: kind.to_string(), asked: amount });
                }
                device.count = usize::try_from(amount / WHOLE).unwrap_or(usize::MAX);
                device.each.push((index, WHOLE));
            } else {
                device.each.push((index, amount));
            }
        }
        demand.machine.retain(|(_, amount)| *amount > 0);
        demand.devices.iter_mut().for_each(|device| device.each.retain(|(_, amount)| *amount > 0));
        demand.devices.retain(|device| !device.each.is_empty());
        Ok(demand)
    }

    /// Whether the demand could be met if nothing else ran.
    pub(super) fn check(&self, demand: &Demand) -> Result<(), NeedsError> {
        let too_much = |key: usize, asked: u64, largest: u64| {
            let Key { name, unit, .. } = &self.keys[key];
            NeedsError::TooMuch { name: name.to_string(), unit: *unit, asked, largest }
        };
        for (key, asked) in &demand.machine {
            let largest = self.places[MACHINE].capacity[*key];
            if *asked > largest {
                return Err(too_much(*key, *asked, largest));
            }
        }
        for DeviceDemand { kind, count, each } in &demand.devices {
            let devices: Vec<&Place> = self.devices_of(kind).map(|(_, place)| place).collect();
            let whole = self.keys.iter().position(|key| key.name == *kind).unwrap_or_default();
            if *count > devices.len() {
                let thousandths = |devices: usize| (devices as u64).saturating_mul(WHOLE);
                return Err(too_much(whole, thousandths(*count), thousandths(devices.len())));
            }
            for (key, asked) in each {
                let largest = devices.iter().map(|place| place.capacity[*key]).max().unwrap_or(0);
                if *asked > largest {
                    return Err(too_much(*key, *asked, largest));
                }
            }
            let has_all = |place: &&&Place| each.iter().all(|(key, asked)| *asked <= place.capacity[*key]);
            let suitable = devices.iter().filter(has_all).count();
            if suitable < *count {
                let (devices, suitable) = (*count as u64, suitable as u64);
                return Err(NeedsError::NotTogether { kind: kind.to_string(), devices, suitable });
            }
        }
        Ok(())
    }

    /// Where the demand could be met now, all of it or nothing.
    pub(super) fn place(&mut self, demand: &Demand, room: Room) -> Option<Vec<Charge>> {
        let fits = |place: &Place, each: &[(usize, u64)]| {
            each.iter().all(|(key, amount)| *amount <= free(place, *key, room))
        };
        if !fits(&self.places[MACHINE], &demand.machine) {
            return None;
        }
        let mut charges = charge(MACHINE, &demand.machine);
        for DeviceDemand { kind, count, each } in &demand.devices {
            let fitting = self.devices_of(kind).filter(|(_, device)| fits(device, each));
            let mut fitting: Vec<Candidate> = fitting.map(candidate).collect();
            if fitting.len() < *count {
                return None;
            }
            for _ in 0..*count {
                let place = self.balance.choose(&mut fitting, &mut self.random)?;
                charges.extend(charge(place, each));
            }
        }
        Some(charges)
    }

    pub(super) fn reserve(&mut self, charges: &[Charge]) {
        let mut last = MACHINE;
        for Charge { place, key, amount } in charges {
            let granted = &mut self.places[*place];
            granted.reserved[*key] += amount;
            granted.late[*key] += amount;
            if *place != last {
                granted.grants += 1;
                last = *place;
            }
        }
    }

    /// Gives back what was reserved; `since_claim` tells whether that happened after the claim that now stands.
    pub(super) fn give_back(&mut self, charges: &[Charge], since_claim: Since) {
        for Charge { place, key, amount } in charges {
            let place = &mut self.places[*place];
            place.reserved[*key] = place.reserved[*key].saturating_sub(*amount);
            if since_claim == Since::Claim {
                place.late[*key] = place.late[*key].saturating_sub(*amount);
            }
        }
    }

    /// From now on, other work leaves room for that demand on the places that are closest to having it.
    pub(super) fn claim(&mut self, demand: &Demand) {
        self.release_claim();
        let mut claimed = charge(MACHINE, &demand.machine);
        for DeviceDemand { kind, count, each } in &demand.devices {
            let has_all = |place: &Place| each.iter().all(|(key, amount)| *amount <= place.capacity[*key]);
            let mut suitable: Vec<Candidate> =
                self.devices_of(kind).filter(|(_, device)| has_all(device)).map(candidate).collect();
            suitable.sort_by(|a, b| a.load.total_cmp(&b.load));
            claimed.extend(suitable.iter().take(*count).flat_map(|device| charge(device.place, each)));
        }
        for Charge { place, key, amount } in claimed {
            self.places[place].claimed[key] = amount;
        }
    }

    pub(super) fn release_claim(&mut self) {
        for place in &mut self.places {
            place.claimed.fill(0);
            place.late.fill(0);
        }
    }

    /// How much of a thing there is in all places that are in service.
    pub(super) fn total(&self, key: usize) -> u64 {
        self.places.iter().filter(|place| !place.is_retired).map(|place| place.capacity[key]).sum()
    }

    /// The names of the devices on which something is reserved.
    pub(super) fn devices_in(&self, charges: &[Charge]) -> Vec<Arc<str>> {
        let mut places: Vec<usize> =
            charges.iter().map(|charge| charge.place).filter(|p| *p != MACHINE).collect();
        places.dedup();
        places.into_iter().map(|place| Arc::clone(&self.places[place].name)).collect()
    }

    pub(super) fn status(&self) -> (Vec<ResourceStatus>, Vec<DeviceStatus>) {
        let machine = self.resources_of(&self.places[MACHINE]);
        let devices = self.places[MACHINE + 1..].iter().map(|place| DeviceStatus {
            name: Arc::clone(&place.name),
            kind: place.kind.clone().unwrap_or_default(),
            resources: self.resources_of(place),
            is_retired: place.is_retired,
        });
        (machine, devices.collect())
    }

    fn resources_of(&self, place: &Place) -> Vec<ResourceStatus> {
        let keys = self.keys.iter().enumerate().filter(|(_, key)| key.kind == place.kind);
        let resources = keys.map(|(index, Key { name, unit, .. }): (usize, &Key)| ResourceStatus {
            name: Arc::clone(name),
            unit: *unit,
            capacity: place.capacity[index],
            reserved: place.reserved[index],
        });
        resources.collect()
    }

    /// The devices of a kind that are in service.
    fn devices_of(&self, kind: &str) -> impl Iterator<Item = (usize, &Place)> {
        let devices = self.places.iter().enumerate();
        devices.filter(move |(_, place)| !place.is_retired && place.kind.as_deref() == Some(kind))
    }
}

/// When something was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// Before the claim that stands, or no claim stands.
    Before,
    /// Since the claim that stands.
    Claim,
}

fn free(place: &Place, key: usize, room: Room) -> u64 {
    let free = place.capacity[key].saturating_sub(place.reserved[key]);
    match room {
        Room::Free => free,
        Room::BesideClaim => {
            let kept = place.claimed[key].saturating_add(place.late[key]);
            if place.claimed[key] == 0 { free } else { free.min(place.capacity[key].saturating_sub(kept)) }
        }
    }
}

fn charge(place: usize, amounts: &[(usize, u64)]) -> Vec<Charge> {
    amounts.iter().map(|(key, amount)| Charge { place, key: *key, amount: *amount }).collect()
}

fn candidate((place, device): (usize, &Place)) -> Candidate {
    Candidate { place, load: device.load(), grants: device.grants }
}
