//! How a decoder knows the order of its tokens.

use tensor::stored::TensorView;
use tensor::{Angles, Ragged};

use super::decoder::Step;
use super::workspace::Workspace;

/// Positions whose angles are tabled; those of later positions are computed when they occur, by the same function.
const TABLED: usize = 8192;

/// How a decoder knows the order of its tokens.
pub(crate) enum Positions {
    /// A row per position is added to the embedding (GPT-2).
    Learned(TensorView),
    /// Queries and keys are rotated in every layer (Qwen3).
    Rotary(Rotary),
}

impl Positions {
    /// Adds learned positions to the embedded rows, or lays out the angles that the layers will rotate by.
    pub(super) fn apply(&self, step: &Step<'_>, work: &mut Workspace) {
        match self {
            Self::Learned(table) => {
                work.positions.clear();
                work.positions.extend(positions(step.ragged).map(|position| position as u32));
                let added = work.normed.rows(step.rows);
                step.kernels.embed(table, &work.positions, added);
                for (x, added) in work.x.rows(step.rows).iter_mut().zip(added) {
                    *x += *added;
                }
            }
            Self::Rotary(rotary) => {
                rotary.fill(step.ragged, work.cos.rows(step.rows), work.sin.rows(step.rows));
            }
        }
    }

    /// Half the rotated width; 0 where nothing rotates.
    pub(super) fn half(&self) -> usize {
        match self {
            Self::Learned(_) => 0,
            Self::Rotary(rotary) => rotary.inverse.len(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Learned(_) => 0,
            Self::Rotary(rotary) => size_of_val(rotary.cos.as_slice()) * 2,
        }
    }
}

/// The position of every row of a batch.
fn positions(ragged: &Ragged) -> impl Iterator<Item = usize> {
    ragged.spans.iter().flat_map(|span| span.context..span.context + span.rows)
}

/// Angles of rotary positions: position · theta^(−2j / dim), computed in `f64` and stored as `f32` cosines and sines.
pub(crate) struct Rotary {
    inverse: Vec<f64>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// For heads of (even) width `dim` and positions below `max_positions`.
    pub(crate) fn new(dim: usize, theta: f64, max_positions: usize) -> Self {
        let half = dim / 2;
        let inverse: Vec<f64> = (0..half).map(|j| theta.powf(-2.0 * j as f64 / dim as f64)).collect();
        let tabled = max_positions.min(TABLED);
        let (mut cos, mut sin) = (vec![0.0; tabled * half], vec![0.0; tabled * half]);
        let rows = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
        for (position, (cos, sin)) in rows.enumerate() {
            turn(&inverse, position, cos, sin);
        }
        Self { inverse, cos, sin }
    }

    /// Cosines and sines of every row of the batch.
    fn fill(&self, ragged: &Ragged, cos: &mut [f32], sin: &mut [f32]) {
        let half = self.inverse.len();
        let rows = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
        for (position, (cos, sin)) in positions(ragged).zip(rows) {
            let at = position * half;
            match (self.cos.get(at..at + half), self.sin.get(at..at + half)) {
                (Some(tabled_cos), Some(tabled_sin)) => {
                    cos.copy_from_slice(tabled_cos);
                    sin.copy_from_slice(tabled_sin);
                }
                _ => turn(&self.inverse, position, cos, sin),
            }
        }
    }
}

fn turn(inverse: &[f64], position: usize, cos: &mut [f32], sin: &mut [f32]) {
    for ((inverse, cos), sin) in inverse.iter().zip(cos).zip(sin) {
        let (s, c) = (position as f64 * inverse).sin_cos();
        (*cos, *sin) = (c as f32, s as f32);
    }
}

impl Workspace {
    /// The angles of the first `rows` rows, as [`Positions::apply`] left them, and the product that they rotate.
    pub(super) fn rotated(&mut self, rows: usize) -> (&mut [f32], Angles<'_>) {
        let half = self.cos.width();
        (self.qkv.rows(rows), Angles { cos: self.cos.rows(rows), sin: self.sin.rows(rows), half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_do_not_depend_on_where_the_table_ends() {
        let (short, long) = (Rotary::new(6, 1e4, 3), Rotary::new(6, 1e4, 1 << 30));
        assert_eq!(long.cos.len(), TABLED * 3);
        let mut ragged = Ragged::default();
        ragged.push(0, 5, &[0]);
        ragged.push(TABLED - 2, 4, &[0]);
        let filled = |rotary: &Rotary| {
            let (mut cos, mut sin) = (vec![0.0; 27], vec![0.0; 27]);
            rotary.fill(&ragged, &mut cos, &mut sin);
            (cos, sin)
        };
        assert_eq!(filled(&short), filled(&long));
        let (cos, sin) = filled(&long);
        assert_eq!((cos[0], sin[0]), (1.0, 0.0));
        let angle = 3.0 * 1e4f64.powf(-2.0 / 6.0);
        assert_eq!((cos[10], sin[10]), (angle.cos() as f32, angle.sin() as f32));
    }
}
