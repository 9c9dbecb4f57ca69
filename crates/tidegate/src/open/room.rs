//! One budget of memory for the models of a process.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use engine::{EngineSettings, KvBudget};
use flow::metrics::System;
use models::cache::CacheError;
use models::{LoadedModel, ModelError, Quantisation, Watch};
use protocol::Inference;
use protocol::status::MemoryPlan;

use crate::OpenError;

/// Keys and values of a model have at least so much, or it does not fit.
const LEAST_KV: u64 = 16 << 20;

/// What the models of a process have of the memory for all of them.
pub(super) struct Room {
    limit: Option<u64>,
    /// Whose memory it is, and which share of it may be used at most when a model is woken.
    system: Option<(System, f64)>,
    taken: Mutex<Vec<Tenant>>,
}

/// A model, for as long as there is an engine for it.
struct Tenant {
    name: String,
    bytes: u64,
    engine: Weak<dyn Inference>,
}

impl Room {
    /// Room within a limit, if there is one.
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, system: None, taken: Mutex::default() }
    }

    /// The same, where models are woken only if no more than a share of a system's memory is used then.
    pub(super) fn within(self, system: System, share: f64) -> Self {
        Self { system: Some((system, share)), ..self }
    }

    /// Whether a model that has planned with so much before would find room again: within the limit, and without leaving the
    /// system so little that nothing is started. Keys and values are taken as they are used, and are content with little.
    pub(super) fn fits(&self, plan: &MemoryPlan) -> bool {
        let needed = plan.total() - plan.kv + plan.kv.min(LEAST_KV);
        let leaves_enough = |(system, share): &(System, f64)| {
            // Images take memory as they come.
            let used = system.memory().used_share_with(needed - plan.images);
            used.is_none_or(|used| used <= *share)
        };
        self.check("", needed).is_ok() && self.system.as_ref().is_none_or(leaves_enough)
    }

    /// Who has how many bytes now.
    fn taken(&self) -> Vec<(String, u64)> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|tenant| tenant.engine.strong_count() > 0);
        taken.iter().map(|tenant| (tenant.name.clone(), tenant.bytes)).collect()
    }

    /// What is left for a model that needs so many bytes.
    fn check(&self, name: &str, needed: u64) -> Result<u64, OpenError> {
        let Some(limit) = self.limit else { return Ok(u64::MAX) };
        let by = self.taken();
        let taken = by.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let left = limit.saturating_sub(taken);
        let none = || OpenError::NoRoom { name: name.to_owned(), needed, taken, limit, by };
        left.checked_sub(needed).ok_or_else(none)
    }

    /// What a model's keys and values may have beside its weights and workspace, where nobody has said.
    pub(super) fn keys_and_values(
        &self,
        name: &str,
        settings: &EngineSettings,
        model: &LoadedModel,
    ) -> Result<KvBudget, OpenError> {
        let without = settings.plan(model);
        let fixed = without.weights + without.workspace;
        // Half of what is left is for models that come later.
        let left = LEAST_KV.saturating_add(self.check(name, fixed + LEAST_KV)? / 2);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        Ok(match settings.kv {
            KvBudget::Bytes(bytes) => KvBudget::Bytes(bytes.min(left)),
            KvBudget::Pages(pages) => KvBudget::Pages(pages),
        })
    }

    /// Counts a model for as long as its engine is there.
    pub(super) fn take(
        &self,
        name: &str,
        plan: MemoryPlan,
        engine: &Arc<dyn Inference>,
    ) -> Result<(), OpenError> {
        let bytes = plan.total();
        self.check(name, bytes)?;
        let tenant = Tenant { name: name.to_owned(), bytes, engine: Arc::downgrade(engine) };
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(tenant);
        Ok(())
    }
}

/// Watches a model being loaded, and stops it once it is known that it cannot fit: before it has filled the memory.
pub(super) struct Fitting<'a> {
    room: &'a Room,
    watch: &'a dyn Watch,
    /// Packed weights have at least the stored ones by this.
    shrinks: u64,
    /// Bytes for which there is no room.
    missed: Cell<Option<u64>>,
}

impl<'a> Fitting<'a> {
    pub(super) fn new(room: &'a Room, quantised: Option<Quantisation>, watch: &'a dyn Watch) -> Self {
        // Stored as f32 at most, and held in 16, or in no less than 4 bits.
        let shrinks = if quantised.is_some() { 8 } else { 2 };
        Self { room, watch, shrinks, missed: Cell::new(None) }
    }

    /// The reason why loading has stopped, if it was for want of room.
    pub(super) fn explain(&self, name: &str, error: OpenError) -> OpenError {
        match (self.missed.get(), error) {
            (Some(needed), OpenError::Model(ModelError::Stopped)) => {
                self.room.check(name, needed).err().unwrap_or(OpenError::Model(ModelError::Stopped))
            }
            (_, error) => error,
        }
    }
}

impl Watch for Fitting<'_> {
    fn packed(&self, done: u64, total: u64) -> ControlFlow<()> {
        let least = total / self.shrinks;
        if self.room.check("", least).is_err() {
            self.missed.set(Some(least));
            return ControlFlow::Break(());
        }
        self.watch.packed(done, total)
    }

    fn cache_failed(&self, error: &CacheError) {
        self.watch.cache_failed(error);
    }
}

#[cfg(test)]
mod tests {
    use protocol::scripted::Scripted;

    use super::*;

    fn model(name: &str, room: &Room, mebibytes: u64) -> Result<Arc<dyn Inference>, OpenError> {
        let engine: Arc<dyn Inference> = Arc::new(Scripted::new());
        let plan = MemoryPlan { weights: mebibytes << 20, ..MemoryPlan::default() };
        room.take(name, plan, &engine).map(|()| engine)
    }

    #[test]
    fn models_fit_beside_each_other_or_hear_who_has_the_room() {
        let room = Room::new(Some(100 << 20));
        let first = model("first", &room, 60).unwrap();
        let told = model("second", &room, 50).err().unwrap().to_string();
        assert!(
            told.starts_with(
                "'second' needs 50 MiB, and 60 of the 100 MiB for models are taken (first: 60 MiB)"
            ),
            "{told}"
        );
        assert!(Fitting::new(&room, None, &models::Unwatched).packed(1, 90 << 20).is_break());
        assert!(
            Fitting::new(&room, Some(Quantisation::INT4), &models::Unwatched)
                .packed(1, 90 << 20)
                .is_continue()
        );
        let plan = |weights: u64, kv: u64| MemoryPlan {
            weights: weights << 20,
            kv: kv << 20,
            ..MemoryPlan::default()
        };
        assert!(
            room.fits(&plan(20, 80)) && !room.fits(&plan(30, 11)),
            "keys and values are content with 16 MiB"
        );
        drop(first);
        assert!(model("second", &room, 50).is_ok(), "what has gone takes nothing");
        assert!(model("third", &Room::new(None), 1 << 20).is_ok());
    }

    #[test]
    fn a_model_is_woken_where_the_system_has_memory_for_it() {
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../flow/test_data/system/v1");
        // Of 2000 MB 400 are used, and 12.3 of the machine's 16.4 GB are free.
        let room = Room::new(None).within(System::at(recorded), 0.9);
        let plan = |weights, images| MemoryPlan { weights, images, ..MemoryPlan::default() };
        assert!(room.fits(&plan(1_300_000_000, 0)) && !room.fits(&plan(1_500_000_000, 0)));
        assert!(room.fits(&plan(1_300_000_000, 1_000_000_000)), "images take memory as they come");
        assert!(Room::new(None).within(System::at("/nowhere"), 0.9).fits(&plan(u64::MAX >> 1, 0)));
    }
}
