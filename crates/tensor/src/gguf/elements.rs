//! The element types of GGUF files.

use super::Defect;
use crate::Dtype;
use crate::stored::{BlockFormat, Encoding};

/// An element type as files number it.
pub(super) struct Element {
    id: u32,
    pub(super) name: &'static str,
    /// Elements of a block; rows are whole blocks.
    pub(super) elements: u64,
    /// Bytes of a block.
    pub(super) bytes: u64,
    /// What it is read as, where it is read.
    pub(super) encoding: Option<Encoding>,
}

/// Every type that `ggml` has, with its number, elements and bytes of a block.
const ELEMENTS: [Element; 34] = [
    float(0, "F32", Dtype::F32),
    float(1, "F16", Dtype::F16),
    blocks(2, "Q4_0", BlockFormat::Q4_0),
    blocks(3, "Q4_1", BlockFormat::Q4_1),
    blocks(6, "Q5_0", BlockFormat::Q5_0),
    blocks(7, "Q5_1", BlockFormat::Q5_1),
    blocks(8, "Q8_0", BlockFormat::Q8_0),
    other(9, "Q8_1", 32, 40),
    other(10, "Q2_K", 256, 84),
    other(11, "Q3_K", 256, 110),
    blocks(12, "Q4_K", BlockFormat::Q4K),
    blocks(13, "Q5_K", BlockFormat::Q5K),
    blocks(14, "Q6_K", BlockFormat::Q6K),
    other(15, "Q8_K", 256, 292),
    other(16, "IQ2_XXS", 256, 66),
    other(17, "IQ2_XS", 256, 74),
    other(18, "IQ3_XXS", 256, 98),
    other(19, "IQ1_S", 256, 50),
    other(20, "IQ4_NL", 32, 18),
    other(21, "IQ3_S", 256, 110),
    other(22, "IQ2_S", 256, 82),
    other(23, "IQ4_XS", 256, 136),
    other(24, "I8", 1, 1),
    other(25, "I16", 1, 2),
    other(26, "I32", 1, 4),
    other(27, "I64", 1, 8),
    other(28, "F64", 1, 8),
    other(29, "IQ1_M", 256, 56),
    float(30, "BF16", Dtype::Bf16),
    other(34, "TQ1_0", 256, 54),
    other(35, "TQ2_0", 256, 66),
    other(39, "MXFP4", 32, 17),
    other(40, "NVFP4", 64, 36),
    other(41, "Q1_0", 128, 18),
];

const fn float(id: u32, name: &'static str, dtype: Dtype) -> Element {
    Element { id, name, elements: 1, bytes: dtype.size() as u64, encoding: Some(Encoding::Float(dtype)) }
}

const fn blocks(id: u32, name: &'static str, format: BlockFormat) -> Element {
    let (elements, bytes) = (format.elements() as u64, format.bytes() as u64);
    Element { id, name, elements, bytes, encoding: Some(Encoding::Blocks(format)) }
}

const fn other(id: u32, name: &'static str, elements: u64, bytes: u64) -> Element {
    Element { id, name, elements, bytes, encoding: None }
}

/// The type of that number.
pub(super) fn find(tensor: &str, id: u32) -> Result<&'static Element, Defect> {
    let found = ELEMENTS.iter().find(|element| element.id == id);
    found.ok_or_else(|| Defect::ElementType { tensor: tensor.to_owned(), found: id })
}

/// The names of the types that are read, for messages.
pub fn names_of_read_types() -> String {
    let read = ELEMENTS.iter().filter(|element| element.encoding.is_some());
    read.map(|element| element.name).collect::<Vec<_>>().join(", ")
}
