//! Writes GGUF files, right ones and wrong ones.

/// A file before it is written. Values and elements are given as they stand in the file.
#[derive(Clone)]
pub(super) struct File {
    pub(super) magic: [u8; 4],
    pub(super) version: u32,
    pub(super) alignment: usize,
    keys: Vec<Vec<u8>>,
    tensors: Vec<Tensor>,
    /// Instead of the numbers of tensors and keys.
    pub(super) counts: Option<[u64; 2]>,
}

#[derive(Clone)]
enum Tensor {
    /// Written behind the one before.
    Stored { start: Vec<u8>, data: Vec<u8> },
    /// As stated.
    Stated(Vec<u8>),
}

impl Default for File {
    fn default() -> Self {
        let (keys, tensors) = (Vec::new(), Vec::new());
        Self { magic: *b"GGUF", version: 3, alignment: 32, keys, tensors, counts: None }
    }
}

/// A text with its length before it.
pub(super) fn text(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&(content.len() as u64).to_le_bytes(), content].concat()
}

impl File {
    pub(super) fn key(&mut self, key: impl AsRef<[u8]>, kind: u32, value: &[u8]) {
        self.keys.push([&text(key)[..], &kind.to_le_bytes(), value].concat());
    }

    pub(super) fn list(&mut self, key: &str, kind: u32, items: &[Vec<u8>]) {
        let head = [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
        self.key(key, 9, &[head, items.concat()].concat());
    }

    /// `extents` are innermost first, as in the file.
    pub(super) fn tensor(&mut self, name: &str, extents: &[u64], element: u32, data: &[u8]) {
        self.tensors.push(Tensor::Stored { start: tensor(name, extents, element), data: data.to_vec() });
    }

    /// A tensor that brings no data.
    pub(super) fn stated_tensor(&mut self, name: &str, extents: &[u64], element: u32, offset: u64) {
        let stated = [&tensor(name, extents, element)[..], &offset.to_le_bytes()].concat();
        self.tensors.push(Tensor::Stated(stated));
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let (mut tensors, mut data) = (Vec::new(), Vec::new());
        for tensor in &self.tensors {
            match tensor {
                Tensor::Stated(stated) => tensors.push(stated.clone()),
                Tensor::Stored { start, data: stored } => {
                    tensors.push([&start[..], &(data.len() as u64).to_le_bytes()].concat());
                    data.extend(stored);
                    data.resize(data.len().next_multiple_of(self.alignment), 0);
                }
            }
        }
        let counts = self.counts.unwrap_or([tensors.len() as u64, self.keys.len() as u64]);
        let mut bytes = [&self.magic[..], &self.version.to_le_bytes()].concat();
        bytes.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
        bytes.extend(self.keys.concat());
        bytes.extend(tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(data);
        bytes
    }
}

fn tensor(name: &str, extents: &[u64], element: u32) -> Vec<u8> {
    let mut bytes = [&text(name)[..], &(extents.len() as u32).to_le_bytes()].concat();
    bytes.extend(extents.iter().flat_map(|extent| extent.to_le_bytes()));
    bytes.extend(element.to_le_bytes());
    bytes
}
