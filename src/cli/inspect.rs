//! `inspect`: lists the tensors of a checkpoint, from its headers.

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::cli::args::{InspectArgs, OutputArgs};
use crate::cli::print;
use crate::error::Result;
use crate::format::{Container, ReadAt};
use crate::merge::check_parent;
use crate::tensor::{DType, JsonPath, counted, escape, human_bytes};

#[derive(Serialize)]
struct Model<'c> {
    path: JsonPath,
    tensors: Vec<Row<'c>>,
}

#[derive(Serialize)]
struct Row<'c> {
    name: &'c str,
    dtype: DType,
    shape: &'c [u64],
    stride: &'c [u64],
    storage_offset: u64,
    file: String,
}

/// Lists the tensors of each model.
pub(crate) fn inspect(args: &InspectArgs, output: &OutputArgs) -> Result<()> {
    let opening = (&args.opaque).into();
    let models = args.models.iter().map(|path| Checkpoint::open_as(path, &opening));
    let models = models.collect::<Result<Vec<_>>>()?;
    if output.json {
        let rows: Vec<Model<'_>> = models.iter().map(model).collect();
        return match rows.as_slice() {
            [one] => print::json(&serde_json::json!({ "tensors": one.tensors })),
            _ => print::json(&serde_json::json!({ "models": rows })),
        };
    }
    for model in &models {
        print::result(&text(model))?;
        for note in &model.notes {
            print::line(&format!("note: {note}"));
        }
        if let Err(error) = check_parent(model) {
            print::line(&format!("note: this can't be merged: {error}"));
            error.hint().into_iter().for_each(|hint| print::line(&format!("hint: {hint}")));
        }
    }
    Ok(())
}

fn model(checkpoint: &Checkpoint) -> Model<'_> {
    let tensors = checkpoint
        .inventory
        .tensors
        .iter()
        .map(|tensor| Row {
            name: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.layout.shape,
            stride: &tensor.layout.stride,
            storage_offset: tensor.layout.storage_offset,
            file: file_name(checkpoint, checkpoint.inventory.file_of(tensor)),
        })
        .collect();
    Model { path: JsonPath::from(&checkpoint.path), tensors }
}

fn file_name(checkpoint: &Checkpoint, file: usize) -> String {
    let path = checkpoint.files.get(file).map(|source| source.path());
    path.and_then(|path| path.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn text(checkpoint: &Checkpoint) -> String {
    let mut rows = vec![["tensor", "dtype", "shape", "size", "file"].map(str::to_owned)];
    let mut seen: std::collections::HashMap<usize, &str> = std::collections::HashMap::new();
    let mut elements = 0u64;
    for tensor in &checkpoint.inventory.tensors {
        let numel = tensor.layout.numel().unwrap_or(u64::MAX);
        let size = match seen.get(&tensor.storage) {
            Some(name) => format!("shares {}", escape(name)),
            None => human_bytes(numel.saturating_mul(tensor.dtype.size_bytes())),
        };
        if seen.insert(tensor.storage, tensor.name.as_str()).is_none() {
            elements = elements.saturating_add(numel);
        }
        rows.push([
            escape(&tensor.name),
            tensor.dtype.to_string(),
            format!("{:?}", tensor.layout.shape),
            size,
            escape(&file_name(checkpoint, checkpoint.inventory.file_of(tensor))),
        ]);
    }
    let mut text = print::table(&rows);
    let storage_bytes: u64 = checkpoint
        .inventory
        .storages
        .iter()
        .map(|storage| storage.size_bytes)
        .fold(0, u64::saturating_add);
    text.push_str(&format!(
        "\n{}, {}, {} in {}: {}",
        counted(checkpoint.inventory.tensors.len() as u64, "tensor"),
        counted(elements, "element"),
        human_bytes(storage_bytes),
        print::shards(checkpoint.files.len()),
        escape(&checkpoint.path.to_string_lossy()),
    ));
    for (file, container) in checkpoint.files.iter().zip(&checkpoint.containers) {
        let writer = match container {
            Container::Zip => " (torch 1.6 and later)",
            Container::Legacy => " (before torch 1.6)",
            Container::Safetensors => "",
        };
        text.push_str(&format!(
            "\n{}: {}{writer}, {}",
            escape(&file.path().file_name().unwrap_or_default().to_string_lossy()),
            container.name(),
            human_bytes(file.len())
        ));
    }
    text
}
