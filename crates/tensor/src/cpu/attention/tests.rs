//! Tiles in memory beside lanes that make their bits, on any machine that has lanes.

use proptest::prelude::*;

use super::*;
use crate::cpu::tiles::Software;
use crate::kernels::Kernels;
use crate::reference::Reference;
use crate::{KvLayout, kv::KvElement};

fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i + 1) * (2 * seed + 1) * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// How to attend: by tiles in memory, or by the lanes of the machine.
enum Way {
    Tiles,
    Lanes,
}

/// A sequence whose last `rows` tokens are to be computed, with keys and values of all its tokens in pages.
struct Case {
    heads: Heads,
    rows: usize,
    qkv: Vec<f32>,
    batch: Ragged,
    kv: KvArena,
}

impl Case {
    fn new(heads: Heads, dtype: KvDtype, (context, rows): (usize, usize), qkv: Vec<f32>) -> Self {
        let pages: Vec<u32> = (0..(context + rows).div_ceil(PAGE_TOKENS) as u32).rev().collect();
        let layout = KvLayout { layers: 1, heads: heads.kv, dim: heads.dim, dtype };
        let mut kv = KvArena::new(layout, pages.len()).unwrap();
        kv.bytes_mut().fill(0xff);
        let mut all = Ragged::default();
        all.push(0, context + rows, &pages);
        Reference.kv_write(Fused { rows: &qkv, heads }, &all, (&mut kv, 0));
        let mut batch = Ragged::default();
        batch.push(context, rows, &pages);
        let qkv = qkv[context * heads.fused()..].to_vec();
        Self { heads, rows, qkv, batch, kv }
    }

    fn reference(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.heads.query * self.heads.dim];
        let qkv = Fused { rows: &self.qkv, heads: self.heads };
        Reference.attend(qkv, &self.batch, (&self.kv, 0), &mut out);
        out
    }

    /// The output; nothing where the machine has no lanes.
    fn run<E: Stored>(&self, way: Way) -> Option<Vec<f32>> {
        let level = Level::new(Isa::available().into_iter().rfind(|&isa| isa != Isa::Scalar)?);
        let mut out = vec![f32::NAN; self.rows * self.heads.query * self.heads.dim];
        let stride = self.heads.fused();
        let calls = Calls { rows: &self.qkv, stride, heads: self.heads, out: Disjoint::new(&mut out) };
        for kv_head in 0..self.heads.kv {
            let item = Item { sequence: 0, kv_head, first: 0, tokens: self.rows };
            let paged = Paged { calls, sight: Sight::Before, batch: &self.batch, kv: (&self.kv, 0), item };
            let memory = &mut vec![f32::NAN; memory(self.heads, &[item])];
            match way {
                Way::Tiles => {
                    let tiles = Software::new(SIDE);
                    level.run(Tiled::<E, _> { paged, memory, tiles, stored: PhantomData });
                }
                Way::Lanes => level.run(ByLanes::<E, true> { paged, memory, stored: PhantomData }),
            }
        }
        Some(out)
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check<E: KvElement + Stored>(case: &Case, tolerance: f32) -> Result<(), TestCaseError> {
    let Some(by_tiles) = case.run::<E>(Way::Tiles) else { return Ok(()) };
    let by_lanes = case.run::<E>(Way::Lanes).unwrap();
    prop_assert!(bits(&by_tiles) == bits(&by_lanes), "tiles and lanes differ");
    for (found, expected) in by_tiles.iter().zip(case.reference()) {
        prop_assert!((found - expected).abs() < tolerance, "{} is not {}", found, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn lanes_make_the_bits_of_tiles(
        (kv, group) in (1usize..3, 1usize..4),
        dim in prop::sample::select(vec![5usize, 16, 32, 48, 80, 128]),
        (context, rows) in (0usize..200, 1usize..70),
        sharp in prop::sample::select(vec![1.0f32, 40.0]),
    ) {
        let heads = Heads { query: kv * group, kv, dim };
        // Sharp scores make weights that underflow and sums that shrink to nothing.
        let qkv: Vec<f32> = noise((context + rows) * heads.fused(), 1)
            .chunks(heads.fused())
            .flat_map(|row| row.iter().enumerate().map(|(i, x)| if i < heads.query * dim { sharp * x } else { *x }))
            .collect();
        let tolerance = 8e-3 * sharp;
        check::<bf16>(&Case::new(heads, KvDtype::Bf16, (context, rows), qkv.clone()), tolerance)?;
        check::<i8>(&Case::new(heads, KvDtype::Int8, (context, rows), qkv), tolerance)?;
    }
}

/// Zero times infinity is no number, so a tile must not bring together a row and what it does not see.
#[test]
fn a_value_without_bound_spoils_those_who_see_it_and_nobody_else() {
    let heads = Heads { query: 4, kv: 2, dim: 32 };
    let (rows, spoilt, width) = (180, 141, 4 * 32);
    let sound = noise(rows * heads.fused(), 1);
    let mut broken = sound.clone();
    let value = spoilt * heads.fused() + (heads.query + heads.kv) * heads.dim + 7;
    broken[value] = f32::INFINITY;
    let case = |qkv| Case::new(heads, KvDtype::Bf16, (0, rows), qkv);
    let Some(expected) = case(sound).run::<bf16>(Way::Tiles) else { return };
    let found = case(broken).run::<bf16>(Way::Tiles).unwrap();
    assert_eq!(bits(&found[..spoilt * width]), bits(&expected[..spoilt * width]));
    assert!((spoilt..rows).all(|row| !found[row * width + 7].is_finite()));
    let other_head = |row: usize| row * width + 2 * heads.dim..(row + 1) * width;
    for row in spoilt..rows {
        assert_eq!(bits(&found[other_head(row)]), bits(&expected[other_head(row)]));
    }
}
