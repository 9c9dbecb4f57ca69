//! From an instruction set level, known at run time, to code compiled for it.

use crate::Isa;

use super::lanes::{Avx2, Avx512, Avx512Bf16, Avx512Vnni};

/// Something to be computed with the instructions that `Proof` stands for. `run` must be `#[inline(always)]`, or it is
/// compiled without them.
pub(super) trait Work<Proof> {
    fn run(self, proof: Proof);
}

/// The level of a [`super::Cpu`]: there is one only where the machine runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Isa);

impl Level {
    /// Panics unless this machine runs `isa` and it is not the scalar one.
    pub(crate) fn new(isa: Isa) -> Self {
        assert!(isa != Isa::Scalar, "the scalar kernels are the reference's");
        assert!(Isa::available().contains(&isa), "this machine does not run {isa}");
        Self(isa)
    }

    pub(super) fn isa(self) -> Isa {
        self.0
    }

    /// Whether the machine has `vpdpbusd` on 512 bits, which no level stands for: it is used wherever it is there.
    pub(super) fn has_vnni(self) -> bool {
        self.0 >= Isa::Avx512 && is_x86_feature_detected!("avx512vnni")
    }

    /// Runs the work on the widest lanes of the level.
    #[inline]
    pub(super) fn run(self, work: impl Work<Avx2> + Work<Avx512>) {
        if self.0 == Isa::Avx2 {
            // SAFETY: `new` saw that the machine runs AVX2 and FMA, with POPCNT.
            unsafe { on_avx2(work) }
        } else {
            // SAFETY: `new` saw that the machine runs AVX-512 F, BW, DQ and VL, which all higher levels include.
            unsafe { on_avx512(work) }
        }
    }

    /// Runs the work on the widest lanes that multiply whole numbers.
    #[inline]
    pub(super) fn run_whole(self, work: impl Work<Avx2> + Work<Avx512Vnni>) {
        if self.has_vnni() {
            // SAFETY: `new` saw that the machine runs AVX-512, and `has_vnni` the rest.
            unsafe { on_avx512vnni(work) }
        } else {
            // SAFETY: `new` saw that the machine runs AVX2 and FMA, which all levels include.
            unsafe { on_avx2(work) }
        }
    }

    /// Runs work by tiles beside the widest lanes of a machine that has them.
    #[inline]
    pub(super) fn run_by_tiles(self, work: impl Work<Avx512Bf16>) {
        assert!(self.0 == Isa::Amx, "{} has no tiles", self.0);
        // SAFETY: `new` saw that the machine runs AMX, and a level includes all lower ones.
        unsafe { on_avx512bf16(work) }
    }

    /// Runs the work if the level has `vdpbf16ps`; gives it back otherwise.
    #[inline]
    pub(super) fn run_bf16<W: Work<Avx512Bf16>>(self, work: W) -> Result<(), W> {
        if self.0 < Isa::Avx512Bf16 {
            return Err(work);
        }
        // SAFETY: `new` saw that the machine runs AVX-512 with AVX512_BF16.
        unsafe { on_avx512bf16(work) };
        Ok(())
    }
}

#[target_feature(enable = "avx2,fma,popcnt")]
fn on_avx2(work: impl Work<Avx2>) {
    // SAFETY: this function is called only where the machine has what it enables.
    work.run(unsafe { Avx2::assume() });
}

#[target_feature(enable = "avx2,fma,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn on_avx512(work: impl Work<Avx512>) {
    // SAFETY: this function is called only where the machine has what it enables.
    work.run(unsafe { Avx512::assume() });
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn on_avx512vnni(work: impl Work<Avx512Vnni>) {
    // SAFETY: this function is called only where the machine has what it enables.
    work.run(unsafe { Avx512Vnni::assume() });
}

#[target_feature(enable = "avx2,fma,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn on_avx512bf16(work: impl Work<Avx512Bf16>) {
    // SAFETY: this function is called only where the machine has what it enables.
    work.run(unsafe { Avx512Bf16::assume() });
}
