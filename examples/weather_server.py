"""A small weather server on built-in data: every kind of thing a server can offer.

Run it:        dragoman run examples/weather_server.py
Look at it:    dragoman inspect examples/weather_server.py
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Literal

import msgspec

from dragoman import Context, RemoteFailure, Server, ToolError

server = Server(
    "weather",
    version="1.0",
    title="Weather of four cities",
    instructions="Ask for a forecast by city. Temperatures are in °C unless you ask for °F.",
)


@dataclass(frozen=True)
class Climate:
    """What a city's weather swings around: °C, and the chance of rain from 0 to 1."""

    high: float
    low: float
    rain: float


CITIES = {
    "Cairo": Climate(31, 19, 0.02),
    "Lisbon": Climate(23, 15, 0.25),
    "Oslo": Climate(12, 4, 0.40),
    "Paris": Climate(18, 10, 0.35),
}
FIRST_DAY = date(2026, 5, 1)

City = Annotated[str, msgspec.Meta(description="Cairo, Lisbon, Oslo or Paris")]


@dataclass(frozen=True)
class Day:
    """One day's weather."""

    date: date
    high: float
    low: float
    sky: Literal["sun", "clouds", "rain"]


@dataclass(frozen=True)
class Forecast:
    """What `forecast` returns; clients that can, get it as data."""

    city: str
    units: Literal["celsius", "fahrenheit"]
    days: list[Day]


def climate_of(city: str) -> Climate:
    """Look a city up, and say which there are when there is none of that name."""
    for name, climate in CITIES.items():
        if name.casefold() == city.casefold():
            return climate
    raise ToolError(f"there is no weather for {city!r}, only for {', '.join(CITIES)}")


def weather_on(climate: Climate, day: int) -> tuple[float, float, Literal["sun", "clouds", "rain"]]:
    """The same weather every time: a wave around the climate."""
    swing = (day * 7) % 5 - 2
    chance = (day * 37 % 100) / 100
    sky: Literal["sun", "clouds", "rain"] = "sun"
    if chance < climate.rain:
        sky = "rain"
    elif chance < climate.rain + 0.3:
        sky = "clouds"
    return climate.high + swing, climate.low + swing, sky


@server.tool(annotations={"readOnlyHint": True})
def forecast(
    city: City,
    days: Annotated[int, msgspec.Meta(ge=1, le=7)] = 3,
    units: Literal["celsius", "fahrenheit"] = "celsius",
) -> Forecast:
    """The weather of the coming days.

    Args:
        days: how many, from 1 to 7
        units: in which the temperatures are given
    """
    climate = climate_of(city)
    found = []
    for day in range(days):
        high, low, sky = weather_on(climate, day)
        if units == "fahrenheit":
            high, low = round(high * 9 / 5 + 32, 1), round(low * 9 / 5 + 32, 1)
        found.append(Day(FIRST_DAY + timedelta(days=day), high, low, sky))
    return Forecast(city.title(), units, found)


@server.tool(title="Collect station readings")
async def collect_readings(city: City, ctx: Context, stations: int = 8) -> str:
    """Ask every station of a city for its reading, which takes a while.

    Args:
        stations: how many there are
    """
    climate = climate_of(city)
    total = 0.0
    for number in range(1, stations + 1):
        await asyncio.sleep(0.2)
        total += weather_on(climate, number)[0]
        await ctx.report_progress(number, stations, f"station {number} has answered")
    await ctx.info(f"{stations} stations of {city} have answered", logger="stations")
    return f"{city}: {total / stations:.1f} °C on average over {stations} stations"


@server.tool
async def summarise(city: City, ctx: Context) -> str:
    """A sentence about the week, written by the client's model."""
    week = forecast(city, days=7)
    days = "; ".join(f"{day.date:%A}: {day.sky}, {day.high:g} °C" for day in week.days)
    try:
        answer = await ctx.sample(
            f"Sum up this week's weather in {city} in one sentence: {days}",
            system_prompt="You write like a friendly radio host.",
            max_tokens=100,
        )
    except RemoteFailure as refusal:
        raise ToolError(f"there is no summary: {refusal.message}") from None
    return answer.text


@server.resource("weather://cities", mime_type="application/json")
def cities() -> list[str]:
    """The cities there is weather for."""
    return list(CITIES)


@server.resource("weather://{city}/now", mime_type="application/json")
def now(city: str) -> dict[str, str | float]:
    """The weather in a city at this moment."""
    high, _, sky = weather_on(climate_of(city), 0)
    return {"city": city.title(), "temperature": high, "sky": sky}


@server.prompt
def plan_trip(city: str, days: str = "3") -> str:
    """Plan a trip that fits the weather.

    Args:
        city: where to
        days: how long
    """
    return f"Plan {days} days in {city}. Look at the forecast first and keep rainy days indoors."


@server.completion("weather://{city}/now")
@server.completion("plan_trip")
def suggest(argument: str, value: str) -> list[str]:
    """Cities that begin like what was typed."""
    if argument != "city":
        return []
    return [city for city in CITIES if city.casefold().startswith(value.casefold())]


if __name__ == "__main__":
    server.run()
