//! A vision tower that lets time pass instead of looking.

use std::sync::Arc;

use models::vision::{Features, Frame, Grid, Tower, TowerShape};
use tensor::{Kernels, TensorError};

use super::{CostModel, VirtualClock};

/// A tower whose pictures are as many patches as the tokens that their work stands for.
pub(super) struct CostlyTower {
    cost: CostModel,
    clock: Arc<VirtualClock>,
    left: Option<u64>,
}

impl CostlyTower {
    pub(super) fn new(cost: CostModel, clock: Arc<VirtualClock>) -> Self {
        Self { cost, clock, left: None }
    }
}

impl Tower for CostlyTower {
    fn shape(&self) -> TowerShape {
        TowerShape {
            patch_values: 1,
            levels: 1,
            width: 1,
            patch: 1,
            temporal: 1,
            merge: 1,
            parameters: 0,
            weight_bytes: 0,
            workspace_bytes: 0,
        }
    }

    fn twin(&self, _: Arc<dyn Kernels>) -> Box<dyn Tower> {
        Box::new(Self::new(self.cost, Arc::clone(&self.clock)))
    }

    fn work(&self, grid: Grid) -> u64 {
        grid.patches() as u64
    }

    fn begin(&mut self, frame: Frame) -> Result<(), TensorError> {
        self.left = Some(self.work(frame.grid));
        Ok(())
    }

    fn advance(&mut self, work: u64) -> Option<Features> {
        let left = self.left?;
        let done = work.clamp(1, left.max(1));
        self.clock.advance(self.cost.look(done));
        self.left = left.checked_sub(done).filter(|left| *left > 0);
        self.left.is_none().then(|| Features::new(1, 1, vec![0.0]))
    }

    fn abandon(&mut self) {
        self.left = None;
    }
}
