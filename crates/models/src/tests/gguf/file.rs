//! Makes GGUF files of folders that tests made, and breaks them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tensor::gguf::Gguf;
use tensor::stored::{BlockFormat, FileBytes, TensorView};

use super::super::folder::{Folder, Random};
use crate::{Dialect, ModelError, Repository, families};

/// A metadata value, as far as models need them.
#[derive(Clone)]
pub(super) enum Key {
    U32(u32),
    I32(i32),
    F32(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

/// A tensor before it is written.
#[derive(Clone)]
pub(super) struct Tensor {
    /// The number of the element type.
    pub(super) kind: u32,
    /// Outermost first.
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
    /// Whether rows and columns have changed places against the folder.
    pub(super) is_turned: bool,
}

/// A file before it is written.
#[derive(Clone)]
pub(super) struct File {
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) tensors: BTreeMap<String, Tensor>,
    dialect: &'static Dialect,
}

impl File {
    /// What the folder holds, with all tensors as F32.
    pub(super) fn of(folder: &Folder) -> Self {
        let family = families::find(folder.config["model_type"].as_str().unwrap()).unwrap();
        let dialect = family.gguf.unwrap();
        let mut keys = tokenizer(folder);
        keys.insert("general.architecture".to_owned(), Key::Text(dialect.architecture.to_owned()));
        for (asked, stored) in dialect.settings {
            let key = format!("{}.{stored}", dialect.architecture);
            match &folder.config[asked] {
                Value::Number(number) if number.is_f64() || *asked == "rope_theta" => {
                    keys.insert(key, Key::F32(number.as_f64().unwrap() as f32));
                }
                Value::Number(number) => drop(keys.insert(key, Key::U32(number.as_u64().unwrap() as u32))),
                _ => {}
            }
        }
        let mut file = Self { keys, tensors: BTreeMap::new(), dialect };
        for (name, tensor) in &folder.tensors {
            let is_turned = family.name == "gpt2" && name.contains(".c_") && tensor.shape.len() == 2;
            let (mut shape, mut values) = (tensor.shape.clone(), tensor.values.clone());
            if is_turned {
                let [inputs, outputs] = [shape[0], shape[1]];
                values =
                    (0..values.len()).map(|i| tensor.values[i % inputs * outputs + i / inputs]).collect();
                shape.reverse();
            }
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            // Masks have no name in these files.
            if let Some(stored) = dialect.stored_name(name) {
                file.tensors.insert(stored, Tensor { kind: 0, shape, bytes, is_turned });
            } else {
                file.tensors.insert(name.clone(), Tensor { kind: 0, shape, bytes, is_turned });
            }
        }
        file
    }

    /// The tensor that folders call `name`.
    pub(super) fn tensor_mut(&mut self, name: &str) -> &mut Tensor {
        let stored = self.dialect.stored_name(name).unwrap_or_else(|| name.to_owned());
        self.tensors.get_mut(&stored).unwrap()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut bytes, key);
            value.write(&mut bytes);
        }
        let mut data = Vec::new();
        for (name, tensor) in &self.tensors {
            text(&mut bytes, name);
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            bytes.extend(tensor.shape.iter().rev().flat_map(|extent| (*extent as u64).to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        bytes
    }

    pub(super) fn repository(&self) -> Repository {
        repository(self.bytes()).unwrap()
    }
}

/// A model in a GGUF file in memory.
pub(super) fn repository(bytes: Vec<u8>) -> Result<Repository, ModelError> {
    Repository::of_gguf(Gguf::parse(Path::new("tiny.gguf"), FileBytes::Owned(Arc::from(bytes)))?)
}

impl Tensor {
    /// Random numbers with scales that keep activations small.
    pub(super) fn random_blocks(&mut self, format: BlockFormat, random: &mut Random) {
        let kinds = [2, 3, 6, 7, 8, 12, 13, 14];
        let number = BlockFormat::ALL.iter().position(|known| *known == format).unwrap();
        let elements: usize = self.shape.iter().product();
        self.kind = kinds[number];
        self.bytes =
            (0..elements / format.elements() * format.bytes()).map(|_| random.next() as u8).collect();
        for block in self.bytes.chunks_exact_mut(format.bytes()) {
            let at: &[usize] = match format {
                BlockFormat::Q6K => &[208],
                _ if format.has_offsets() => &[0, 2],
                _ => &[0],
            };
            for at in at {
                let scale = half::f16::from_f32((1.0 + random.below(100) as f32 / 100.0) / 4096.0);
                block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
    }

    /// The tensor as it is read from a file.
    pub(super) fn view(&self, name: &str) -> TensorView {
        let dialect = families::FAMILIES[0].gguf.unwrap();
        let tensors = BTreeMap::from([(name.to_owned(), self.clone())]);
        let bytes = File { keys: BTreeMap::new(), tensors, dialect }.bytes();
        let file = Gguf::parse(Path::new("one.gguf"), FileBytes::Owned(Arc::from(bytes))).unwrap();
        file.tensors().tensor(name).unwrap()
    }
}

/// Keys of the tokenizer of a folder, its chat template and the ends of texts.
fn tokenizer(folder: &Folder) -> BTreeMap<String, Key> {
    let content = folder.files["tokenizer.json"].clone().unwrap();
    let json: Value = serde_json::from_slice(&content).unwrap();
    let count = folder.config["vocab_size"].as_u64().unwrap() as usize;
    let mut tokens: Vec<String> = (0..count).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![5; count];
    for (token, id) in json["model"]["vocab"].as_object().unwrap() {
        let id = id.as_u64().unwrap() as usize;
        (tokens[id], kinds[id]) = (token.clone(), 1);
    }
    for added in json["added_tokens"].as_array().unwrap() {
        let id = added["id"].as_u64().unwrap() as usize;
        tokens[id] = added["content"].as_str().unwrap().to_owned();
        kinds[id] = if added["special"] == true { 3 } else { 4 };
    }
    let merges = json["model"]["merges"].as_array().unwrap().iter();
    let merges = merges.map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    BTreeMap::from([
        ("tokenizer.ggml.model", Key::Text("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Key::Text("gpt-2".to_owned())),
        ("tokenizer.ggml.tokens", Key::Texts(tokens)),
        ("tokenizer.ggml.token_type", Key::I32s(kinds)),
        ("tokenizer.ggml.merges", Key::Texts(merges.collect())),
        ("tokenizer.ggml.eos_token_id", Key::U32(260)),
        ("tokenizer.chat_template", Key::Text("{{ messages[0].content }}{{ eos_token }}".to_owned())),
    ])
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn list(bytes: &mut Vec<u8>, kind: u32, count: usize) {
    bytes.extend(9u32.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend((count as u64).to_le_bytes());
}

impl Key {
    fn write(&self, bytes: &mut Vec<u8>) {
        let mut number = |kind: u32, value: [u8; 4]| bytes.extend([kind.to_le_bytes(), value].concat());
        match self {
            Self::U32(value) => number(4, value.to_le_bytes()),
            Self::I32(value) => number(5, value.to_le_bytes()),
            Self::F32(value) => number(6, value.to_le_bytes()),
            Self::Flag(value) => {
                bytes.extend(7u32.to_le_bytes());
                bytes.push(u8::from(*value));
            }
            Self::Text(value) => {
                bytes.extend(8u32.to_le_bytes());
                text(bytes, value);
            }
            Self::Texts(values) => {
                list(bytes, 8, values.len());
                values.iter().for_each(|value| text(bytes, value));
            }
            Self::I32s(values) => {
                list(bytes, 5, values.len());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
        }
    }
}
