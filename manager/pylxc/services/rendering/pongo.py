"""Jinja2 made to read what pongo2 reads: the language of LXD's image templates.

pongo2 is Django's template language in Go. Where the two differ in what images use, tokens are changed between Jinja2's
lexer and its parser (`|default:"x"`, `&&`, `||`, `!`, `<>`), tags that Jinja2 lacks are added (`ifequal`), and values
behave as in Go: a map has keys and no methods, what is missing is empty text. See: https://pkg.go.dev/github.com/flosch/pongo2
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.lexer import TOKEN_BLOCK_BEGIN, TOKEN_OPERATOR, TOKEN_VARIABLE_BEGIN, Lexer, Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import SandboxedEnvironment

MAX_OUTPUT = 4 << 20
"""Characters that a template may make, at most."""

_OPERATOR = "pongo_operator"
_OPERATORS = {"&&": ("name", "and"), "||": ("name", "or"), "!": ("name", "not"), "<>": ("ne", "!=")}
_OPERATOR_PATTERN = re.compile(r"&&|\|\||<>|!(?!=)")
_LOOP_FACTS = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})


class RenderError(Exception):
    """A template cannot be rendered; the text is one line for the user."""


class ConfigGet:
    """`config_get(key, default)`: a configuration value without newlines at its end."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = config

    def __call__(self, key: object, default: object = "") -> object:
        """Return the value of a key, `default` when it is not set."""
        value = self._config.get(str(key))
        return default if value is None else value.rstrip("\r\n")


class _Syntax(Extension):
    tags = {"ifequal", "ifnotequal"}

    def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
        tokens = list(stream)
        position = 0
        while position < len(tokens):
            token = tokens[position]
            position += 1
            if token.type == _OPERATOR:
                yield Token(token.lineno, *_OPERATORS[token.value])
            elif token.type == "colon" and _is_after_filter(tokens, position - 1):
                end = _argument_end(tokens, position)
                yield Token(token.lineno, "lparen", "(")
                yield from tokens[position:end]
                yield Token(token.lineno, "rparen", ")")
                position = end
            else:
                yield token

    def parse(self, parser: Parser) -> nodes.Node:
        """Read `{% ifequal a b %}…{% else %}…{% endifequal %}`."""
        tag = next(parser.stream)
        left, right = parser.parse_unary(), parser.parse_unary()
        test = nodes.Compare(left, [nodes.Operand("eq" if tag.value == "ifequal" else "ne", right)])
        body = parser.parse_statements((f"name:end{tag.value}", "name:else"))
        otherwise: list[nodes.Node] = []
        if next(parser.stream).value == "else":
            otherwise = parser.parse_statements((f"name:end{tag.value}",), drop_needle=True)
        return nodes.If(test, body, [], otherwise, lineno=tag.lineno)


def _is_after_filter(tokens: list[Token], colon: int) -> bool:
    return colon >= 2 and tokens[colon - 1].type == "name" and tokens[colon - 2].type == "pipe"


def _argument_end(tokens: list[Token], start: int) -> int:
    """Return the position after a filter's argument: a literal, or a variable with attributes and calls."""
    end = start + 1
    if start < len(tokens) and tokens[start].type != "name":
        return end
    while end < len(tokens):
        if tokens[end].type == "dot":
            end += 2
        elif tokens[end].type == "lparen":
            depth = 0
            while end < len(tokens):
                depth += {"lparen": 1, "rparen": -1}.get(tokens[end].type, 0)
                end += 1
                if depth == 0:
                    break
        else:
            break
    return end


class Environment(SandboxedEnvironment):
    """Templates of images: no attribute, method or function of any object but what is named here."""

    def __init__(self) -> None:
        super().__init__(
            autoescape=False,
            keep_trailing_newline=True,
            finalize=_text,
            extensions=[_Syntax],
            cache_size=0,
        )
        self.globals.clear()
        self.filters = dict(_FILTERS)
        self._own_lexer = Lexer(self)
        for state in (TOKEN_VARIABLE_BEGIN, TOKEN_BLOCK_BEGIN):
            rules = self._own_lexer.rules[state]
            place = next(index for index, rule in enumerate(rules) if rule.tokens == TOKEN_OPERATOR)
            rules.insert(place, rules[place]._replace(pattern=_OPERATOR_PATTERN, tokens=_OPERATOR))

    @property
    def lexer(self) -> Lexer:
        """This environment's lexer; Jinja2's own is shared by all."""
        return self._own_lexer

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        for other in template.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
            raise TemplateSyntaxError("a template cannot include others", other.lineno)
        for loop in template.find_all(nodes.For):
            if isinstance(loop.target, nodes.Tuple):  # of a map: its keys with their values
                loop.iter = nodes.Filter(loop.iter, "pairs", [], [], None, None, lineno=loop.lineno)
                loop.iter.set_environment(self)
        return template

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the value of a map's key; nothing else has attributes."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return the value of a map's key or a list's index, undefined when there is none."""
        if isinstance(obj, LoopContext) and argument in _LOOP_FACTS:
            return getattr(obj, argument)
        if isinstance(obj, dict | list | tuple | str):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        return self.undefined(name=str(argument))

    def is_safe_callable(self, obj: Any) -> bool:
        """Return whether a template may call this."""
        return isinstance(obj, ConfigGet | Macro)


def render(environment: Environment, source: str, context: Mapping[str, Any]) -> str:
    """Return what a template makes.

    Args:
        environment: whose cost is shared by many templates.
        source: the template.
        context: its variables; `config_get` is added.

    Raises:
        RenderError: it is malformed, does what is not allowed, or makes too much.
    """
    size = 0
    parts = []
    try:
        template = environment.from_string(source)
        for part in template.generate({**context, "config_get": ConfigGet(context.get("config", {}))}):
            size += len(part)
            if size > MAX_OUTPUT:
                raise RenderError(f"it makes more than {MAX_OUTPUT >> 20} MiB")
            parts.append(part)
    except TemplateSyntaxError as error:
        raise RenderError(f"line {error.lineno}: {error.message}") from None
    except SecurityError:
        raise RenderError("it calls something other than config_get") from None
    except TemplateError as error:
        raise RenderError(error.message or "it cannot be rendered") from None
    except RecursionError:
        raise RenderError("it is nested too deeply") from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise RenderError(str(error)) from None
    return "".join(parts)


def _text(value: Any) -> Any:
    """Return what pongo2 prints of a value."""
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, float) else value


def _pairs(value: Any) -> Iterator[Any]:
    return iter(sorted(value.items()) if isinstance(value, dict) else value)


def _default_if_none(value: Any, default: Any = "") -> Any:
    return default if value is None or isinstance(value, Undefined) else value


def _yesno(value: Any, words: str = "yes,no,maybe") -> str:
    yes, no, *maybe = words.split(",")
    if value is None or isinstance(value, Undefined):
        return maybe[0] if maybe else no
    return yes if value else no


def _add(value: Any, other: Any) -> Any:
    return value + other if isinstance(value, int) and isinstance(other, int) else f"{value}{other}"


_GO_LAYOUT = {"2006": "%Y", "January": "%B", "Jan": "%b", "Monday": "%A", "Mon": "%a", "01": "%m", "02": "%d",
              "15": "%H", "03": "%I", "04": "%M", "05": "%S", "PM": "%p", "MST": "%Z", "-0700": "%z",
              "%": "%%"}  # fmt: skip
_GO_PART = re.compile("|".join(map(re.escape, _GO_LAYOUT)))


def _date(value: Any, layout: str) -> str:
    """Return a time (RFC 3339) in a layout of Go's, which shows how 2006-01-02 15:04:05 is to be written."""
    moment = dt.datetime.fromisoformat(str(value))
    return moment.strftime(_GO_PART.sub(lambda part: _GO_LAYOUT[part[0]], layout))


def _integer(value: Any) -> int:
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return 0


_SHARED = ("capitalize", "center", "first", "join", "last", "length", "lower", "random", "replace", "reverse", "safe",
           "sort", "striptags", "title", "trim", "upper", "urlencode", "wordcount")  # fmt: skip
_FILTERS: dict[str, Callable[..., Any]] = {
    **{name: FILTERS[name] for name in _SHARED},
    "add": _add,
    "addslashes": lambda value: re.sub(r"([\\'\"])", r"\\\1", str(value)),
    "capfirst": lambda value: str(value)[:1].upper() + str(value)[1:],
    "cut": lambda value, text: str(value).replace(str(text), ""),
    "date": _date,
    "default": lambda value, default="": value or default,
    "default_if_none": _default_if_none,
    "divisibleby": lambda value, by: _integer(by) != 0 and _integer(value) % _integer(by) == 0,
    "integer": _integer,
    "length_is": lambda value, length: len(value) == length,
    "ljust": lambda value, width: str(value).ljust(width),
    "pairs": _pairs,
    "rjust": lambda value, width: str(value).rjust(width),
    "split": lambda value, separator: str(value).split(str(separator)),
    "yesno": _yesno,
}
