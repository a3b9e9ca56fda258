"""The summary of a store in words: names and values, for a terminal or a page."""

from pipeline.teacher_store.inspection import StoreSummary, TeacherSummary
from pipeline.wording import counted
from store_schemas.formats import HeatmapProfile, OptionalArrays
from store_schemas.heatmap_codec import CodecError


def facts_of_store(summary: StoreSummary) -> list[tuple[str, str]]:
    """Return the names and values of a summary, in words and in order."""
    size = f"{summary.num_bytes / 1e6:.1f} MB"
    if summary.bytes_per_view is not None:
        size += f", {summary.bytes_per_view:.0f} bytes a view, all files counted"
    facts = [("store", summary.path), ("schema", summary.schema), ("size", size)]
    for teacher in summary.teachers:
        facts += _facts_of_teacher(teacher)
    if summary.writer is not None:
        facts.append(("being written by", str(summary.writer)))
    return facts


def _facts_of_teacher(found: TeacherSummary) -> list[tuple[str, str]]:
    counts = ", ".join(f"{n} {words}" for words, n in found.status_counts.items() if n)
    has_heatmaps = isinstance(found.profile, HeatmapProfile)
    cells = f"{_size(found.heatmap_size_hw)} cells"
    if not has_heatmaps:
        cells = f"the teacher's heatmaps of {cells} are not stored"
    shards = counted(found.num_shards, "shard")
    keypoints = counted(found.num_keypoints, "keypoint")
    state = (
        f"complete, {shards}"
        if found.is_complete
        else f"INCOMPLETE, {found.num_present} of {shards}; finish it with cache-teacher --resume"
    )
    return [
        ("teacher", f"{found.name}: {_teacher_in_words(found)}"),
        ("state", state),
        ("fingerprint", found.fingerprint),
        ("content", found.content or "none yet"),
        ("people", f"{found.num_people} in {counted(found.num_images, 'image')}"),
        ("views", f"{found.num_views} of each person, the plain crop included; seed {found.seed}"),
        ("crops", f"{_size(found.input_size_hw)}; {_crops_in_words(found.optional)}"),
        ("tokens", _tokens_in_words(found.optional)),
        ("heatmaps" if has_heatmaps else "keypoints", f"{keypoints}, {cells}"),
        ("profile", f"{found.profile.name}: {found.profile.dtype}, {_precision_in_words(found)}"),
        ("bytes a view", _bytes_by_array(found)),
        ("views by status", counts),
        *([("codec error", _error_in_words(found.codec_error))] if has_heatmaps else []),
        *(
            []
            if found.token_error is None
            else [("token error", f"{_error_in_words(found.token_error)}, relative")]
        ),
        *((f"written: {name}", str(value)) for name, value in _flat(found.provenance)),
    ]


def _precision_in_words(found: TeacherSummary) -> str:
    if isinstance(found.profile, HeatmapProfile):
        return f"heat stored to {found.threshold:.4g}"
    return f"keypoints stored to {found.profile.step / 2:.4g} crop pixels"


def _error_in_words(error: CodecError) -> str:
    if error.rms is None:
        return "not measured"
    return f"rms {error.rms:.2g}, largest {error.largest:.2g} (over {error.num_values} values)"


def _teacher_in_words(found: TeacherSummary) -> str:
    identity = found.teacher
    words = [str(identity.get("architecture", "unknown"))]
    if "sha256" in identity:
        words.append(f"sha256 {str(identity['sha256'])[:12]}")
    if "heatmap_frame" in identity:
        words.append(f"frame {identity['heatmap_frame']}")
    if identity.get("flip_test"):
        words.append("flips averaged")
    return ", ".join(words)


def _crops_in_words(optional: OptionalArrays) -> str:
    crops = optional.crops
    if crops is None:
        return "not stored"
    stored = f"stored as JPEG of quality {crops.quality}, {crops.subsampling}"
    if any(crops.margin_hw):
        rows, columns = crops.margin_hw
        stored += f", with a margin of {rows} rows and {columns} columns on each side"
    return stored


def _tokens_in_words(optional: OptionalArrays) -> str:
    tokens = optional.tokens
    if tokens is None:
        return "not stored"
    return (
        f"{' and '.join(tokens.kinds)}, {tokens.dim} numbers each as {tokens.dtype}, "
        f"{_size(tokens.grid_hw)} patches"
    )


def _bytes_by_array(found: TeacherSummary) -> str:
    """Return the bytes of a written view in every array; checksums and status count as one."""
    if not found.num_written:
        return "none yet"
    main = (
        "heatmaps",
        "outputs",
        "keypoints",
        "confidences",
        "crops",
        "keypoint_tokens",
        "visual_tokens",
    )
    sizes = {name: found.array_bytes[name] for name in main if name in found.array_bytes}
    rest = "checksums, token scales and status" if found.token_error else "checksums and status"
    sizes[rest] = sum(found.array_bytes.values()) - sum(sizes.values())
    return ", ".join(f"{name} {size / found.num_written:.0f}" for name, size in sizes.items())


def _flat(provenance: object) -> list[tuple[str, object]]:
    if not isinstance(provenance, dict):
        return []
    return [
        (
            name,
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value,
        )
        for name, value in provenance.items()
    ]


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"
