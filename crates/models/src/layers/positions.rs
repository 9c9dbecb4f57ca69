//! How a decoder knows the order of its tokens.

use tensor::Angles;
use tensor::stored::TensorView;

use super::decoder::Step;
use super::workspace::Workspace;
use crate::batch::Position;

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
                work.positions.extend(step.positions.iter().map(|position| position.t));
                let added = work.normed.rows(step.rows);
                step.kernels.embed(table, &work.positions, added);
                for (x, added) in work.x.rows(step.rows).iter_mut().zip(added) {
                    *x += *added;
                }
            }
            Self::Rotary(rotary) => {
                rotary.fill(step.positions, work.cos.rows(step.rows), work.sin.rows(step.rows));
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

/// Angles of rotary positions: position · theta^(−2j / dim), computed in `f64` and stored as `f32` cosines and sines.
pub(crate) struct Rotary {
    inverse: Vec<f64>,
    /// Which position turns each frequency.
    axes: Vec<Axis>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// One of the three positions of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Time,
    Height,
    Width,
}

impl Axis {
    fn of(self, position: Position) -> usize {
        let Position { t, h, w } = position;
        (match self {
            Self::Time => t,
            Self::Height => h,
            Self::Width => w,
        }) as usize
    }
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
        Self { axes: vec![Axis::Time; half], inverse, cos, sin }
    }

    /// Of every three frequencies, lets the second be turned by the height and the third by the width, as far as so many
    /// of each go: interleaved multimodal rope ("Qwen3-VL Technical Report", Qwen Team 2025, arXiv 2511.21631).
    pub(crate) fn interleaved(self, heights: usize, widths: usize) -> Self {
        let axis = |j: usize| match j % 3 {
            1 if j < 3 * heights => Axis::Height,
            2 if j < 3 * widths => Axis::Width,
            _ => Axis::Time,
        };
        Self { axes: (0..self.inverse.len()).map(axis).collect(), ..self }
    }

    /// Cosines and sines of every row of the batch.
    fn fill(&self, positions: &[Position], cos: &mut [f32], sin: &mut [f32]) {
        let half = self.inverse.len();
        let rows = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
        for (&position, (cos, sin)) in positions.iter().zip(rows) {
            if !position.is_text() {
                for (j, (cos, sin)) in cos.iter_mut().zip(sin).enumerate() {
                    (*cos, *sin) = self.turned(self.axes[j].of(position), j);
                }
                continue;
            }
            let position = position.t as usize;
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

impl Rotary {
    /// Cosine and sine of frequency `j` at a position.
    fn turned(&self, position: usize, j: usize) -> (f32, f32) {
        let at = position * self.inverse.len() + j;
        match (self.cos.get(at), self.sin.get(at)) {
            (Some(cos), Some(sin)) => (*cos, *sin),
            _ => angle(self.inverse[j], position),
        }
    }
}

fn turn(inverse: &[f64], position: usize, cos: &mut [f32], sin: &mut [f32]) {
    for ((inverse, cos), sin) in inverse.iter().zip(cos).zip(sin) {
        (*cos, *sin) = angle(*inverse, position);
    }
}

fn angle(inverse: f64, position: usize) -> (f32, f32) {
    let (sin, cos) = (position as f64 * inverse).sin_cos();
    (cos as f32, sin as f32)
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
        let text = (0..5).chain(TABLED as u32 - 2..TABLED as u32 + 2).map(Position::text);
        let positions: Vec<Position> = text.collect();
        let filled = |rotary: &Rotary| {
            let (mut cos, mut sin) = (vec![0.0; 27], vec![0.0; 27]);
            rotary.fill(&positions, &mut cos, &mut sin);
            (cos, sin)
        };
        assert_eq!(filled(&short), filled(&long));
        let (cos, sin) = filled(&long);
        assert_eq!((cos[0], sin[0]), (1.0, 0.0));
        let angle = 3.0 * 1e4f64.powf(-2.0 / 6.0);
        assert_eq!((cos[10], sin[10]), (angle.cos() as f32, angle.sin() as f32));
    }

    #[test]
    fn every_second_and_third_frequency_is_turned_by_height_and_width() {
        let rotary = Rotary::new(16, 1e4, 100).interleaved(2, 1);
        let (mut cos, mut sin) = (vec![0.0; 8], vec![0.0; 8]);
        rotary.fill(&[Position { t: 3, h: 40, w: 7 }], &mut cos, &mut sin);
        let by = [3, 40, 7, 3, 40, 3, 3, 3];
        let expected = (0..8).map(|j| angle(rotary.inverse[j], by[j]));
        assert_eq!(cos.into_iter().zip(sin).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
