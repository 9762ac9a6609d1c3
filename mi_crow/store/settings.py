"""The user's config file: a few typed settings in one JSON object."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import get_type_hints

from mi_crow.errors import CorruptDataError, NotFoundError, UserError, nearest
from mi_crow.store.atomic import read_json, write_json


@dataclass(frozen=True)
class UserSettings:
    """Defaults that flags and environment variables override. Empty means unset."""

    workspace: str = ""  # folder used when neither --workspace nor MI_CROW_WORKSPACE is given
    device: str = ""  # device used when --device is not given: auto, cpu, cuda, cuda:N, mps

    @classmethod
    def load(cls) -> "UserSettings":
        """The settings of this user; the defaults when there is no file.

        Raises CorruptDataError when the file is invalid.
        """
        path = settings_path()
        try:
            data = read_json(path)
            hints = get_type_hints(cls)
            for key, value in data.items():
                if key in hints and not isinstance(value, hints[key]):
                    raise ValueError(f"{key} must be of type {hints[key].__name__}")
            return cls(**{key: value for key, value in data.items() if key in hints})
        except NotFoundError:
            return cls()
        except (ValueError, TypeError, AttributeError, CorruptDataError) as error:
            raise CorruptDataError(
                f"{path} is not a config file ({error})", hint="fix or delete it"
            ) from error

    def get(self, key: str) -> str:
        """The value of a setting. Raises UserError for an unknown key."""
        return getattr(self, _known(key))

    def with_value(self, key: str, value: str) -> "UserSettings":
        """These settings with one changed. Raises UserError for an unknown key or bad value."""
        _known(key)
        if key == "device" and value:
            validate_device(value)
        if key == "workspace" and value:
            value = str(Path(value).expanduser().absolute())
        return replace(self, **{key: value})

    def save(self) -> None:
        """Writes the file atomically."""
        write_json(settings_path(), asdict(self))


def settings_path() -> Path:
    """The path of the config file."""
    import platformdirs

    return Path(platformdirs.user_config_dir("mi-crow")) / "config.json"


def validate_device(device: str) -> str:
    """`device` itself if it is spelt like one; it need not exist.

    Raises UserError otherwise.
    """
    kind, colon, index = device.partition(":")
    plain = not colon and kind in ("auto", "cpu", "cuda", "mps")
    if not plain and not (kind == "cuda" and index.isdigit()):
        raise UserError(
            f"device {device!r} is not known", hint="use auto, cpu, cuda, cuda:N or mps"
        )
    return device


def _known(key: str) -> str:
    names = [f.name for f in fields(UserSettings)]
    if key not in names:
        raise UserError(f"setting {key!r} is not known", hint=f"there is {nearest(key, names, 9)}")
    return key
