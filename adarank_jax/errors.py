"""Everything that can be refused: one family of exceptions, each with a stable code.

A code never changes its meaning. `TITLES` lists all of them, and ``docs/errors.md``
explains each under an anchor of its own. Errors about arguments of a function, which no
file and no setting of a user can cause, stay plain `ValueError` and `TypeError`.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Message(NamedTuple):
    """What is told about one problem.

    Attributes:
        code: ``E`` or ``W`` and three digits, one of `TITLES`.
        found: what is there, with the file, tensor or key if `where` lacks it.
        where: file, field of the configuration, or both.
        expected: what should be there instead.
        remedy: what to do next, as an order: "download it again".
    """

    code: str
    found: str
    where: str = ""
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Writes one sentence.

        Examples:
            >>> str(Message("E110", "0 bytes", "`a.pt`", "a file", "fetch it again"))
            'E110 `a.pt`: 0 bytes, expected a file; fetch it again.'
        """
        where = f"{self.where}: " if self.where else ""
        expected = f", expected {self.expected}" if self.expected else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        text = f"{self.code} {where}{self.found}{expected}{remedy}"
        return text if text.endswith((".", "?", "!")) else f"{text}."

    def within(self, where: str) -> "Message":
        """Returns the message with a place around its own.

        Args:
            where: the field of a configuration, say.

        Examples:
            >>> Message("E110", "0 bytes", "`a.pt`").within("experts.cars").where
            'experts.cars: `a.pt`'
        """
        return self._replace(where=f"{where}: {self.where}" if self.where else where)


class AdaRankError(Exception):
    """A problem that a user can act on.

    Args:
        code: as in `Message`; so are all others.
        found: what is there.
        where: file, field, or both.
        expected: what should be there.
        remedy: what to do next.

    Attributes:
        message: all of these.
        exit_code: that a command ends with.
    """

    exit_code = 1

    def __init__(
        self,
        code: str,
        found: str,
        where: str = "",
        expected: str = "",
        remedy: str = "",
    ):
        """Notes what is wrong."""
        self.message = Message(code, found, where, expected, remedy)
        super().__init__(str(self.message))

    def __str__(self) -> str:
        """Writes one sentence, whatever the built-in class would write."""
        return str(self.message)


class UsageError(AdaRankError, ValueError):
    """A mistake in options or configuration."""

    exit_code = 2


class InputError(AdaRankError, ValueError):
    """An input that cannot be used."""

    exit_code = 3


class MissingError(InputError, FileNotFoundError):
    """An input that is not there."""


class UnreachableError(InputError, ConnectionError):
    """An input that cannot be fetched."""


class MachineError(AdaRankError, OSError):
    """A disk, a permission, memory or a device that is not there."""

    exit_code = 4


class NumericsError(AdaRankError, FloatingPointError):
    """Numbers that are not finite, or predictions that have collapsed."""

    exit_code = 5


class DamageError(AdaRankError, ValueError):
    """A run, a checkpoint or an export that is damaged."""

    exit_code = 6


class Problems(AdaRankError):
    """All problems of a run at once.

    Args:
        messages: one a problem, at least one.
        exit_code: that a command ends with.

    Attributes:
        messages: the same.
    """

    def __init__(self, messages: Sequence[Message], exit_code: int):
        """Notes the problems; the first stands for all where one is asked for."""
        super().__init__(*messages[0])
        self.messages, self.exit_code = tuple(messages), exit_code

    def __str__(self) -> str:
        """Writes a line a problem."""
        return "\n".join(map(str, self.messages))


TITLES = {
    # E0: options and configuration
    "E001": "An error that nobody foresaw",
    "E010": "There is no such key",
    "E011": "A value does not fit",
    "E012": "The file is not plain YAML",
    "E013": "Two settings do not fit together",
    "E015": "Something that is needed is missing",
    "E016": "There is no such name",
    "E017": "There is no such configuration",
    "E018": "The command line is not understood",
    # E1: files and containers
    "E100": "The input cannot be used",
    "E101": "The path does not exist",
    "E102": "The file cannot be read",
    "E103": "The Hub has no such repository, revision or file",
    "E104": "The repository is private or gated",
    "E105": "The Hub cannot be reached",
    "E106": "The file is not in the cache and the network is off",
    "E107": "The path is no regular file",
    "E108": "The folder holds no checkpoint",
    "E109": "The file holds no weights",
    "E110": "The file is empty",
    "E111": "The file is cut off",
    "E112": "There are bytes after the last tensor",
    "E113": "The header claims too many bytes",
    "E114": "The entry of a tensor is wrong",
    "E115": "A name comes twice in a JSON text",
    "E116": "The dtype of a tensor cannot be used",
    "E117": "The file is not what was meant to be downloaded",
    "E118": "The file is for another reader",
    "E119": "The format of the file is not known",
    "E120": "Shards are missing",
    "E121": "The index and its shards differ",
    "E122": "The name of a shard leaves its folder",
    "E123": "The JSON text is too large or too deep",
    "E125": "The format is that of another program",
    "E126": "The zip archive is not as torch.save writes it",
    "E127": "The file must be converted once with torch",
    "E128": "The pickle in the file is damaged",
    "E129": "The JSON text is not valid",
    "E130": "The digest is not the expected one",
    "E132": "The source is neither a path nor a name on the Hub",
    "E140": "The model needs Python code of its own",
    "E141": "The model is of another family",
    "E142": "The model is built in a way that is not supported",
    "E143": "A value of the configuration file is wrong",
    "E144": "The configuration file is missing",
    "E150": "The file contains code",
    "E152": "A tensor reaches beyond its storage",
    "E153": "The file is made to take too much time or memory",
    "E154": "A link leads out of its folder",
    "E160": "The npz file cannot be read",
    "E161": "The npz file is too large",
    "E162": "The parquet file is damaged",
    "E163": "The data set has no such split",
    "E164": "Parquet files of the split are missing",
    "E165": "Several configurations have the split",
    "E166": "The files differ in their columns",
    "E167": "The data set cannot be fetched",
    "E168": "The data set is not prepared",
    "E180": "A package cannot be downloaded",
    "E181": "The text demo is not made yet",
    # E2: tensors, shapes, values and the base that experts share
    "E201": "Base and expert differ in size",
    "E202": "The model cannot be written in this layout",
    "E203": "The expert does not come from the base",
    "E210": "Tensors are missing",
    "E211": "Tensors have no place",
    "E212": "The prefix of the names is unknown or ambiguous",
    "E213": "The shape of a tensor does not fit",
    "E214": "Query, key and value differ in shape",
    "E215": "Fields of the two configurations differ",
    "E216": "The vocabularies differ",
    "E218": "The weights are those of another kind of model",
    "E220": "A tensor holds NaN or infinity",
    "E221": "Numbers do not fit the dtype of the export",
    "E228": "The SVD of a matrix does not converge",
    # E3: tasks, heads, images and texts
    "E301": "There are no experts",
    "E302": "Two tasks have one name",
    "E303": "A task has no name that can be shown",
    "E304": "There are fewer than two classes",
    "E305": "The numbers of classes differ",
    "E306": "The head does not fit the model",
    "E308": "The entropy of the task is undefined",
    "E309": "The task has no head",
    "E310": "The classes are not those of the head",
    "E311": "Nothing tells which class is which row",
    "E312": "Some examples have no label",
    "E313": "A label is no class",
    "E314": "There is no such data set",
    "E315": "The data set was found nowhere",
    "E316": "The data set has another size",
    "E317": "The file holds no head",
    "E318": "A template is not usable",
    "E319": "The logit scale is no logarithm",
    "E320": "There are no examples",
    "E322": "Too many images would be skipped",
    "E324": "The values of the image have no known range",
    "E326": "The image has too many pixels",
    "E328": "The entry is no regular file of the folder",
    "E330": "The preprocessing cannot be used",
    "E331": "An image cannot be read",
    "E332": "Images lie beside the folders of classes",
    "E333": "The images have another shape or type",
    "E340": "The tokenizer is not that of the model",
    "E341": "A token has no row in the model",
    "E343": "The text is not plain UTF-8",
    "E344": "There is no such column",
    "E345": "A line cannot be read",
    "E346": "There is no tokenizer",
    "E347": "The tokenizer cannot be read",
    "E348": "The tokenizer cannot pad",
    "E349": "`max_length` does not fit",
    "E350": "A column has another type",
    "E351": "The columns do not fit the task",
    "E361": "The description of the head does not fit",
    "E362": "The names of the classes cannot be used",
    # E4: the machine
    "E400": "The operating system refused",
    "E401": "The disk has no room",
    "E402": "The folder cannot be written to",
    "E403": "The output is a file",
    "E404": "The folder holds something else",
    "E405": "The disk changed what was written",
    "E410": "The memory is too small",
    "E411": "The memory ran out",
    "E412": "The device is not there",
    "E420": "A package is not installed",
    # E5: numbers
    "E500": "A number is not finite",
    "E501": "The loss is not finite",
    "E502": "Predictions have collapsed to one class",
    "E503": "Masks or coefficients are not finite",
    "E504": "The device computes wrongly",
    "E510": "Fine-tuning diverged",
    "E520": "The rebuilt weights differ in their last bits",
    # E6: run folders and exports
    "E601": "No saved state is intact",
    "E602": "A file of the run is damaged",
    "E603": "The factors are damaged",
    "E604": "A file of weights is damaged",
    "E605": "A saved state or its rows are damaged",
    "E606": "The saved states are of another run",
    "E607": "The export is damaged",
    "E608": "The folder is neither a run nor an export",
    "E609": "A file cannot be read",
    "E610": "Another process writes to the folder",
    "E620": "The folder holds another run",
    "E630": "The processes of a run differ",
    "E631": "Another process of the run has problems",
    "E650": "A folder of the cache is damaged",
    "E660": "The list of digests of an export is damaged",
    "E661": "The recipe is damaged",
    "E662": "The recipe is of another version",
    # W0, W1, W2, W3, W4, W5, W6: warnings, grouped as the errors are
    "W011": "CART of two experts is their average",
    "W012": "Too few steps to flip a mask",
    "W013": "The settings are those of another model",
    "W100": "Something to know",
    "W118": "The name of a file says something else than its content",
    "W124": "A folder holds the weights twice",
    "W140": "The configuration is assumed",
    "W151": "Python classes were left out",
    "W222": "The expert is stored with fewer bits than the base",
    "W223": "The expert equals the base",
    "W224": "Two experts are identical",
    "W227": "The expert holds very large numbers",
    "W301": "There is one task",
    "W305": "Classes have no example",
    "W306": "All labels are of one class",
    "W307": "The head is not scaled",
    "W310": "The class names are not those of the checkpoint",
    "W311": "The order of the classes is taken on trust",
    "W312": "Some examples have no label",
    "W321": "A batch is larger than a task",
    "W322": "Images are left out",
    "W323": "Images are transparent",
    "W325": "Images have several frames",
    "W327": "Images are tiny",
    "W328": "Entries are no regular files",
    "W329": "Two tasks share examples",
    "W330": "Images may be preprocessed by halves",
    "W340": "The tokenizer of the base is used",
    "W342": "Texts are cut",
    "W343": "Texts are empty",
    "W344": "Empty lines are left out",
    "W345": "Rows have several lines",
    "W347": "The tokenizer may cut texts in another way",
    "W402": "Compiled programs are not kept",
    "W410": "The memory may be too small",
    "W412": "A GPU is not used",
    "W502": "Predictions collapse to one class",
    "W603": "An older state was taken",
    "W604": "The run goes on with other bits",
    "W605": "Rows of metrics were changed",
}
"""Title by code."""
