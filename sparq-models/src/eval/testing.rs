//! What tests share.

use burn::tensor::{DType, Device};

use crate::{
    checkpoint::{Checkpoint, StaticFiles},
    text_model::TextModel,
};

/// The model inside the program, which has a real tokenizer.
pub(crate) fn model() -> TextModel {
    let files = StaticFiles {
        config: include_bytes!("../../../sparq-cli/demo/config.json"),
        generation_config: None,
        tokenizer: Some(include_bytes!("../../../sparq-cli/demo/tokenizer.json")),
        weights: include_bytes!("../../../sparq-cli/demo/model.safetensors"),
    };
    let checkpoint = Checkpoint::from_static(files).unwrap();
    TextModel::load(&checkpoint, &Device::flex(), DType::F32, &mut |_, _| {}).unwrap()
}
