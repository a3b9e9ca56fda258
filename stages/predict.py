"""Student, photographs and videos -> poses drawn on them, and as COCO results."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.boxes import PERSON_CATEGORY, Boxes, read_boxes
from pipeline.coco.image_files import decode_image, decode_upright
from pipeline.detectors.onnx_detector import OnnxDetector
from pipeline.errors import PeopleError
from pipeline.machine import map_ahead
from pipeline.media.inputs import NamedFile, find_inputs
from pipeline.media.video_files import Frame, VideoWriter, count_frames, read_frames, read_webcam
from pipeline.pictures.on_photographs import draw_people
from pipeline.pictures.poses import Picture, write_jpeg
from pipeline.prediction.box_sources import BoxSource, DetectedBoxes, FiledBoxes, WholeImages
from pipeline.prediction.image_poses import WHOLE_IMAGE_PADDING, ImagePoses, predict_images
from pipeline.prediction.networks import OpenedNetwork, open_student_at
from pipeline.prediction.tracking import Tracker
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.runs.run_folder import RunFolder
from pipeline.storage.files import publish
from pipeline.wording import Log
from stages.settings.prediction import PredictConfig
from stages.settings.training import TrainStudentConfig

PHOTOGRAPHS_AT_ONCE = 8
"""Photographs whose people share batches, and which are in memory together."""
_TERMS_OF_SIGMA = {"simulated_heatmap", "moments", "covariance"}


@dataclass(frozen=True)
class PredictResult:
    """What was predicted, and where it lies."""

    output: Path
    num_images: int
    """Photographs and frames."""
    num_poses: int
    people_per_second: float
    """Over the whole time: decoding, detecting and drawing too."""
    failed: tuple[str, ...]
    """Why inputs are left out, or end early, a message each."""


def predict(
    config: PredictConfig, progress: Progress = NO_PROGRESS, log: Log = lambda _: None
) -> PredictResult:
    """Predict everyone in photographs and videos; write results.json, images.json and pictures.

    progress: counts photographs and frames, with people/s.
    log: is told of each input that cannot be read, and the rest goes on.

    Raises:
        DistilError: the student, the boxes or the detector are at fault; nothing is written.
    """
    inputs = find_inputs(config.inputs)
    network = open_student_at(config.student, flip_test=config.flip_test, device=config.device)
    source = _box_source(config)
    total = len(inputs.photographs)
    run = _Run(config, network, source, progress, log)
    for note in network.notes + inputs.notes:
        log(note)
    run.expect(total)

    run.photographs(inputs.photographs)
    for video in inputs.videos:
        try:
            run.expect(count_frames(video.path))
            run.video(read_frames(video.path), video.name)
        except PeopleError as error:
            run.fail(error)
    for webcam in inputs.webcams:
        try:
            run.video(read_webcam(webcam), f"webcam{webcam}", ends_with_interrupt=True)
        except PeopleError as error:
            run.fail(error)

    return run.publish()


def _box_source(config: PredictConfig) -> BoxSource:
    if config.detections is not None:
        return FiledBoxes(read_boxes(config.detections, config.annotations, config.min_box_score))
    if config.detector is not None:
        detector = OnnxDetector(
            config.detector, config.detector_settings, min_score=config.min_box_score
        )
        return DetectedBoxes(detector.detect, config.detect_every)
    return WholeImages()


class _Run:
    """What was predicted so far; its JSON files are written at the end."""

    def __init__(
        self,
        config: PredictConfig,
        network: OpenedNetwork,
        source: BoxSource,
        progress: Progress,
        log: Log,
    ) -> None:
        self._config, self._network, self._source = config, network, source
        self._progress, self._log = progress, log
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._failed: list[str] = []
        self._names: set[str] = set()
        self._done = self._total = self._num_files = 0
        self._has_sigmas = _learned_sigmas(config.student)
        self._category = PERSON_CATEGORY
        if isinstance(source, FiledBoxes):
            self._category = source.given.category_id
        self._started = time.monotonic()

    def expect(self, count: int) -> None:
        """Count photographs or frames that will come."""
        self._total += count

    def fail(self, error: PeopleError) -> None:
        """Name an input that cannot be read, or not to its end."""
        self._failed.append(str(error))
        self._log(str(error))

    def photographs(self, files: Sequence[NamedFile]) -> None:
        """Predict photographs, some at a time; one that cannot be read is named."""
        # Boxes of a file belong to the pixels as they are stored, as annotations do.
        decode = decode_image if isinstance(self._source, FiledBoxes) else decode_upright

        def read(numbered: tuple[int, NamedFile]) -> tuple[int, Picture] | PeopleError:
            number, file = numbered
            try:
                return self._source.image_id(file.path, number), decode(file.path)
            except PeopleError as error:
                return error

        numbered = list(enumerate(files, 1))
        self._num_files = len(files)
        with ThreadPoolExecutor(2) as pool:
            read_ahead = map_ahead(pool, read, numbered, PHOTOGRAPHS_AT_ONCE)
            for chunk in _chunks(zip(files, read_ahead, strict=True), PHOTOGRAPHS_AT_ONCE):
                self._predict_photographs(chunk)
                self._advance(len(chunk))

    def video(
        self, frames: Iterable[Frame], name: str, *, ends_with_interrupt: bool = False
    ) -> None:
        """Predict the frames of a video or a webcam, and give its people track ids.

        Raises:
            PeopleError: the video cannot be read to its end; what was read is kept.
        """
        skeleton, rule = self._network.skeleton, self._network.rule
        sigmas = np.array(skeleton.sigmas) if skeleton.sigmas else None
        tracker = Tracker(sigmas, rule.scored_keypoints if rule.kind == "learned" else None)
        damage: PeopleError | None = None
        path = self._path_of(name, ".mp4")
        with ExitStack() as stack:
            writer = stack.enter_context(VideoWriter(path)) if self._config.draw else None
            try:
                for frame in islice(frames, self._config.max_frames):
                    picture = self._predict_frame(frame, name, tracker, draws=writer is not None)
                    if writer is not None:
                        writer.write(picture, frame.seconds)
                    self._advance(1)
            except PeopleError as error:
                damage = error
            except KeyboardInterrupt:  # the end of a webcam; of a file, the command is stopped
                if not ends_with_interrupt:
                    raise
        if damage is not None:
            raise damage

    def publish(self) -> PredictResult:
        """Write the JSON files."""
        folder = self._config.output
        publish(folder / "images.json", json.dumps(self._document(), indent=1).encode())
        publish(folder / "results.json", json.dumps(self._results).encode())
        return PredictResult(
            folder,
            len(self._images),
            len(self._results),
            len(self._results) / max(time.monotonic() - self._started, 1e-9),
            tuple(self._failed),
        )

    def _predict_photographs(
        self, chunk: Sequence[tuple[NamedFile, tuple[int, Picture] | PeopleError]]
    ) -> None:
        files, ids, images = [], [], []
        for file, found in chunk:
            if isinstance(found, PeopleError):
                self.fail(found)
                continue
            files.append(file)
            ids.append(found[0])
            images.append(found[1])
        boxes = list(map(self._source.in_photograph, images, ids))
        for file, image_id, image, poses in zip(
            files, ids, images, self._predict(images, boxes), strict=True
        ):
            self._record(image_id, image, {"file_name": file.name}, poses, None)
            if self._config.draw:
                picture = self._drawn(image, poses, None)
                write_jpeg(self._path_of(file.name, ".jpg"), picture)

    def _predict_frame(self, frame: Frame, name: str, tracker: Tracker, *, draws: bool) -> Picture:
        boxes = self._source.in_frame(frame.image, frame.index)
        if boxes is None:
            boxes = tracker.followed((frame.image.shape[0], frame.image.shape[1]))
        (poses,) = self._predict([frame.image], [boxes])
        track_ids = tracker.update(poses)
        image_id = max(self._num_files, len(self._images)) + 1
        facts = {
            "file_name": name,
            "frame_index": frame.index,
            "seconds": round(frame.seconds, 4),
        }
        self._record(image_id, frame.image, facts, poses, track_ids)
        return self._drawn(frame.image, poses, track_ids) if draws else frame.image

    def _predict(self, images: Sequence[Picture], boxes: Sequence[Boxes]) -> list[ImagePoses]:
        padding = self._config.padding
        if padding is None and self._config.whole_image:
            padding = WHOLE_IMAGE_PADDING
        return predict_images(
            self._network,
            images,
            boxes,
            padding=padding,
            batch_size=self._config.batch_size,
            drop_duplicates=not self._config.whole_image,
        )

    def _drawn(
        self, image: Picture, poses: ImagePoses, track_ids: NDArray[np.int64] | None
    ) -> Picture:
        return draw_people(
            image,
            poses,
            self._network.skeleton,
            self._network.rule,
            track_ids=track_ids,
            min_keypoint_score=self._config.min_keypoint_score,
            with_boxes=self._config.draw_boxes and not self._config.whole_image,
        )

    def _record(
        self,
        image_id: int,
        image: Picture,
        facts: dict[str, Any],
        poses: ImagePoses,
        track_ids: NDArray[np.int64] | None,
    ) -> None:
        height, width = image.shape[:2]
        self._images.append({"id": image_id, "width": width, "height": height, **facts})
        for row in range(poses.num_people):
            triples = np.concatenate(
                [poses.keypoints[row].round(3), poses.keypoint_scores[row, :, None].round(5)], 1
            )
            result = {
                "image_id": image_id,
                "category_id": self._category,
                "keypoints": triples.ravel().tolist(),
                "score": float(poses.scores[row]),
                "bbox": poses.bbox_xywh[row].round(3).tolist(),
                "box_score": float(poses.box_scores[row]),
            }
            if self._has_sigmas and poses.sigmas is not None:
                result["sigmas"] = poses.sigmas[row].round(4).ravel().tolist()
            if track_ids is not None:
                result["track_id"] = int(track_ids[row])
            self._results.append(result)

    def _advance(self, count: int) -> None:
        self._done += count
        rate = len(self._results) / max(time.monotonic() - self._started, 1e-9)
        self._total = max(self._total, self._done)  # headers of videos are estimates
        self._progress.update(self._done, self._total, {"people/s": rate})

    def _path_of(self, name: str, suffix: str) -> Path:
        """Return a path for an input's drawing that no other input has."""
        folder, stem = "videos" if suffix == ".mp4" else "pictures", str(Path(name).with_suffix(""))
        unique, number = f"{folder}/{stem}", 1
        while unique in self._names:
            number += 1
            unique = f"{folder}/{stem}-{number}"
        self._names.add(unique)
        return self._config.output / f"{unique}{suffix}"

    def _document(self) -> dict[str, Any]:
        """Return a COCO file without annotations: what the ids and the numbers of results mean."""
        skeleton, rule = self._network.skeleton, self._network.rule
        scored = rule.scored_keypoints if rule.kind == "learned" else ()
        names = skeleton.keypoint_names
        return {
            "info": {
                "student": str(self._config.student),
                **{name: value for name, value in self._network.facts.items() if value is not None},
                "scored_keypoints": list(names if scored is None else (names[k] for k in scored)),
            },
            "images": self._images,
            "annotations": [],
            "categories": [
                {
                    "id": self._category,
                    "name": "person",
                    "keypoints": list(names),
                    "skeleton": [[start + 1, end + 1] for start, end in skeleton.edges],
                }
            ],
        }


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _learned_sigmas(student: Path) -> bool:
    """Return whether a loss taught the student its sigmas, as far as its run folder tells."""
    if not student.is_dir():
        return True
    loss = RunFolder(student).read_config(TrainStudentConfig).effective_loss
    return loss.learns_residuals or not _TERMS_OF_SIGMA.isdisjoint(loss.terms)
