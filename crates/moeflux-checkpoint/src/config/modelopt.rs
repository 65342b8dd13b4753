//! Where NVIDIA's modelopt says how it quantised: in `hf_quant_config.json`, and in newer files in `quantization_config`, with
//! or without a `quant_method`.

use crate::error::Error;
use crate::small_file::{self, LARGEST_CONFIG};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Gives the config of a folder the `quantization_config` that `hf_quant_config.json` stands for, and the name of the
/// method if only the algorithm is said.
pub(crate) fn complete(folder: &Path, config: &mut Map<String, Value>) -> Result<(), Error> {
    let has =
        |config: &Map<String, Value>, name: &str| config.get(name).is_some_and(|value| !value.is_null());
    if !has(config, "quantization_config") && !has(config, "quantization") {
        let beside = small_file::read_object(&folder.join("hf_quant_config.json"), LARGEST_CONFIG)?;
        let Some(Value::Object(mut block)) = beside.and_then(|mut file| file.remove("quantization")) else {
            return Ok(());
        };
        // What `quantization_config` calls them.
        if let Some(excluded) = block.remove("exclude_modules") {
            block.insert("ignore".to_owned(), excluded);
        }
        config.insert("quantization_config".to_owned(), Value::Object(block));
    }
    if let Some(Value::Object(block)) = config.get_mut("quantization_config")
        && !has(block, "quant_method")
        && has(block, "quant_algo")
    {
        block.insert("quant_method".to_owned(), json!("modelopt"));
    }
    Ok(())
}
