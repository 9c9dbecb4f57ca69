//! Where the tokens of pictures stand in a prompt, and at which positions.

use std::ops::Range;

use super::{Grid, Marks};
use crate::batch::Position;

/// A prompt with room for its pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Token ids; a picture's mark once per token of it.
    pub ids: Vec<u32>,
    /// The pictures, in order.
    pub pictures: Vec<Placed>,
    /// One per token.
    pub positions: Vec<Position>,
    /// How far the positions of what is written next stay behind its place in the sequence.
    behind: u32,
}

/// A picture in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its tokens.
    pub tokens: Range<usize>,
    /// Its extent.
    pub grid: Grid,
}

/// The marks of a prompt are not as many as its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prompt has room for {marked} pictures, and {given} were given: one placeholder stands for each picture"
)]
pub struct LayoutError {
    /// Marks in the prompt.
    pub marked: usize,
    /// Pictures.
    pub given: usize,
}

impl Layout {
    /// Where the token number `at` stands, which may be one that is written yet.
    pub fn position(&self, at: usize) -> Position {
        self.positions.get(at).copied().unwrap_or_else(|| Position::text(at as u32 - self.behind))
    }

    /// The largest position and one, less the number of tokens: transformers' `rope_delta`.
    pub fn delta(&self) -> i64 {
        -i64::from(self.behind)
    }
}

/// Makes room in a prompt, whose `ids` hold one mark for each picture: those of images for `images`, those of videos for
/// the frames of clips, in order of appearance.
///
/// Inside a picture, time stands still while height and width count the tokens; the text goes on behind the larger of
/// both. So positions never run ahead of the number of tokens.
///
/// # Errors
/// When there are more or fewer marks than pictures.
pub fn lay_out(
    ids: &[u32],
    (images, frames): (&[Grid], &[Grid]),
    marks: Marks,
) -> Result<Layout, LayoutError> {
    let count = |mark: u32| ids.iter().filter(|id| **id == mark).count();
    for (mark, given) in [(marks.image, images.len()), (marks.video, frames.len())] {
        let marked = count(mark);
        if marked != given {
            return Err(LayoutError { marked, given });
        }
    }
    let (mut images, mut frames) = (images.iter(), frames.iter());
    let (mut layout, mut next) = (Layout::default(), 0);
    for &id in ids {
        let grid = match id {
            _ if id == marks.image => images.next(),
            _ if id == marks.video => frames.next(),
            _ => None,
        };
        match grid {
            Some(&grid) => next = layout.place(id, grid, (marks.merge, next)),
            None => {
                layout.ids.push(id);
                layout.positions.push(Position::text(next));
                next += 1;
            }
        }
    }
    layout.behind = (layout.ids.len() as u32).saturating_sub(next);
    Ok(layout)
}

impl Layout {
    /// Appends a picture at position `at` and returns the one behind it.
    fn place(&mut self, mark: u32, grid: Grid, (merge, at): (usize, u32)) -> u32 {
        let [h, w] = [grid.h, grid.w].map(|patches| (patches / merge) as u32);
        let first = self.ids.len();
        let cells = (0..h).flat_map(|a| (0..w).map(move |b| Position { t: at, h: at + a, w: at + b }));
        self.positions.extend(cells);
        self.ids.resize(self.positions.len(), mark);
        self.pictures.push(Placed { tokens: first..self.ids.len(), grid });
        at + h.max(w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { image: 7, video: 8, merge: 2 };

    #[test]
    fn text_goes_on_behind_the_longer_side_of_a_picture() {
        let ids: Vec<u32> = (100..110).chain([7, 200]).collect();
        let layout = lay_out(&ids, (&[Grid { h: 4, w: 6 }], &[]), MARKS).unwrap();
        assert_eq!(layout.ids, [&ids[..10], &[7; 6], &[200]].concat());
        assert_eq!(layout.pictures, [Placed { tokens: 10..16, grid: Grid { h: 4, w: 6 } }]);
        let of = |axis: fn(&Position) -> u32| layout.positions[10..].iter().map(axis).collect::<Vec<_>>();
        assert_eq!(of(|p| p.t), [10, 10, 10, 10, 10, 10, 13]);
        assert_eq!(of(|p| p.h), [10, 10, 10, 11, 11, 11, 13]);
        assert_eq!(of(|p| p.w), [10, 11, 12, 10, 11, 12, 13]);
        assert_eq!((layout.delta(), layout.position(17)), (-3, Position::text(14)));
    }

    #[test]
    fn marks_and_pictures_must_be_as_many() {
        let grid = Grid { h: 2, w: 2 };
        let check = |ids: &[u32], images: &[Grid], frames: &[Grid], expected| {
            let found = lay_out(ids, (images, frames), MARKS).map(|layout| layout.ids.len());
            assert_eq!(found.map_err(|error| (error.marked, error.given)), expected);
        };
        check(&[1, 7, 7, 8, 2], &[grid, grid], &[grid], Ok(5));
        check(&[1, 2], &[], &[], Ok(2));
        check(&[1, 7], &[], &[], Err((1, 0)));
        check(&[1, 8], &[grid], &[], Err((0, 1)));
        check(&[7, 8], &[grid], &[], Err((1, 0)));
    }
}
