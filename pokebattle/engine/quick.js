'use strict';
// The engine's battle with what a one-on-one battle without items, abilities and spectators never needs left out:
// no log, no requests, no events that nobody hears, no object built twice. The engine's own classes stay as they are.
// Every battle ends as the engine's own does, with its generator in the same state (tests/test_engine.py compares).

const PREFIX = /^on(?:Ally|Any|Field|Foe|Side|Source)?/;
const DEEPEST = 8;  // the engine refuses events that are nested deeper
const LARGEST = 2 ** 20;  // below it the engine's 32-bit arithmetic leaves a whole number times 4096 / 4096 as it is

const memo = compute => {
  const known = new Map();
  return key => {
    let value = known.get(key);
    if (value === undefined) known.set(key, value = compute(key));
    return value;
  };
};
const callbackName = memo(eventid => `on${eventid}`);

// Which events an effect hears, with and without the prefix that says whose event it is.
function heardBy(effect) {
  const events = new Set();
  for (const key in effect) {
    if (!key.startsWith('on') || effect[key] === undefined) continue;
    events.add(key.slice(2)).add(key.replace(PREFIX, ''));
    if (key === 'onStart') events.add('SwitchIn');  // what the engine calls for abilities and items
  }
  return events;
}

// The engine's generator (x -> 0x5D588B656C078965 x + 0x269EC3 modulo 2^64) in two 32-bit halves.
class Generator {
  constructor([first, second, third, fourth]) {
    this.high = first * 65536 + second;
    this.low = third * 65536 + fourth;
  }

  next() {
    const {high, low} = this, low0 = low & 0xFFFF, low1 = low >>> 16;
    const middle = low0 * 0x6C07 + low1 * 0x8965 + (low0 * 0x8965 >>> 16);
    const carried = low1 * 0x6C07 + Math.floor(middle / 65536);
    const sum = (Math.imul(low, 0x6C078965) >>> 0) + 0x269EC3;
    this.low = sum >>> 0;
    this.high = Math.imul(low, 0x5D588B65) + Math.imul(high, 0x6C078965) + carried + (sum > 0xFFFFFFFF) >>> 0;
    return this.high;
  }

  getSeed() {
    return [this.high >>> 16, this.high & 0xFFFF, this.low >>> 16, this.low & 0xFFFF].join(',');
  }
}

module.exports = function quick({Battle, PRNG, Pokemon, Side}, dex, format) {
  // A table of the dex whose entries are looked up by name once.
  const table = (own, extra = {}) => Object.assign(Object.create(own), {get: (() => {
    const named = memo(name => own.get(name));
    return name => typeof name === 'string' ? named(name) : own.get(name);
  })()}, extra);
  // A copy of a move for one use. Its parts are common to all copies and frozen: to change one is an error.
  const prepared = memo(move => {
    const copy = dex.deepClone(move);
    // The engine gives flags to every effect of a move that it applies.
    const effects = [copy.self, copy.secondary, ...copy.secondaries || []];
    for (const effect of [...effects, ...effects.map(effect => effect?.self)]) if (effect) effect.flags ??= {};
    Object.values(copy).forEach(dex.deepFreeze);
    return {...copy, toString: move.toString, hit: 0};  // without a prototype it is copied forty times as fast
  });
  const common = memo(move => Object.freeze({...prepared(move)}));
  let looking = false;  // whether moves are only looked at, so that the common copy will do
  const activate = move => looking ? common(move) : {...prepared(move)};
  const hiddenPower = memo(ivs => dex.getHiddenPower(JSON.parse(ivs)));
  const quickDex = Object.create(dex, Object.fromEntries(Object.entries({
    formats: table(dex.formats), species: table(dex.species), natures: table(dex.natures), moves: table(dex.moves),
    conditions: table(dex.conditions), types: table(dex.types, {isName: memo(name => dex.types.isName(name))}),
    getActiveMove: move => move && typeof move.hit === 'number' ? move : activate(quickDex.moves.get(move)),
    getHiddenPower: ivs => hiddenPower(JSON.stringify(ivs)),
  }).map(([name, value]) => [name, {value}])));

  const hears = memo(id => heardBy(dex.conditions.getByID(id)));
  const ALWAYS = new Set([format, dex.abilities.get('noability'), dex.items.getByID(''), dex.conditions.getByID(''),
    ...dex.species.all().filter(species => !species.isNonstandard)].flatMap(effect => [...heardBy(effect)]));

  function anyHears(states, eventid) {
    for (const id in states) if (hears(id).has(eventid)) return true;
    return false;
  }

  function anyLasts(states) {
    for (const id in states) if (states[id].duration) return true;
    return false;
  }

  class QuickPokemon extends Pokemon {
    hasItem(item) {
      return this.item !== '' && super.hasItem(item);
    }

    hasAbility(ability) {
      return this.ability !== 'noability' && super.hasAbility(ability);
    }
  }

  class QuickSide extends Side {
    addPokemon(set) {
      const pokemon = new QuickPokemon(set, this);
      pokemon.position = this.pokemon.length;
      this.pokemon.push(pokemon);
      this.pokemonLeft++;
      return pokemon;
    }
  }

  return class QuickBattle extends Battle {
    constructor(seed, teams) {
      const prng = new PRNG(seed);
      prng.rng = new Generator(seed);
      super({format, formatid: format.id, prng});
      teams.forEach((team, number) => { this.sides[number] = new QuickSide('AB'[number], this, number, team); });
      this.start();
    }

    get dex() { return quickDex; }
    set dex(_) {}

    add() {}
    addMove() {}
    addSplit() {}
    attrLastMove() {}
    debug() {}
    hint() {}
    retargetLastMove() {}

    // Whether anything in this battle might hear an event.
    heard(eventid) {
      if (ALWAYS.has(eventid) || anyHears(this.field.pseudoWeather, eventid)) return true;
      if (this.field.weather || this.field.terrain || this.events) return true;
      for (const side of this.sides) {
        const pokemon = side && side.pokemon[0];
        if (!pokemon) continue;
        if (pokemon.ability !== 'noability' || pokemon.item) return true;
        if (pokemon.status && hears(pokemon.status).has(eventid)) return true;
        if (anyHears(pokemon.volatiles, eventid) || anyHears(side.sideConditions, eventid)) return true;
        if (anyHears(side.slotConditions[0], eventid)) return true;
      }
      return false;
    }

    runEvent(eventid, target, source, sourceEffect, relayVar, onEffect, fastExit) {
      if (this.eventDepth >= DEEPEST || this.heard(eventid) || typeof relayVar === 'number' && relayVar >= LARGEST
        || onEffect && (!sourceEffect || sourceEffect[callbackName(eventid)] !== undefined)) {
        return super.runEvent(eventid, target, source, sourceEffect, relayVar, onEffect, fastExit);
      }
      if (Array.isArray(target)) return Array.isArray(relayVar) ? relayVar : target.map(() => true);
      return relayVar === undefined || relayVar === null ? true : relayVar;
    }

    singleEvent(eventid, effect, state, target, source, sourceEffect, relayVar, customCallback) {
      if (!customCallback && effect[callbackName(eventid)] === undefined && this.eventDepth < DEEPEST) {
        return relayVar === undefined ? true : relayVar;
      }
      return super.singleEvent(eventid, effect, state, target, source, sourceEffect, relayVar, customCallback);
    }

    // An event that nobody hears still draws who would have been first of two that are equally fast.
    eachEvent(eventid, effect, relayVar) {
      if (eventid === 'Weather' || this.heard(eventid)) return super.eachEvent(eventid, effect, relayVar);
      const [one, other] = this.getAllActive();
      if (other && one.speed === other.speed) this.prng.random(0, 2);
    }

    fieldEvent(eventid, targets) {
      if (this.heard(eventid) || eventid === 'Residual' && this.lasting()) super.fieldEvent(eventid, targets);
    }

    lasting() {
      return anyLasts(this.field.pseudoWeather) || this.sides.some(side => side.pokemon[0].statusState.duration
        || anyLasts(side.pokemon[0].volatiles) || anyLasts(side.sideConditions) || anyLasts(side.slotConditions[0]));
    }

    // Here the engine looks at every move that a Pokémon knows.
    endTurn() {
      looking = true;
      try {
        super.endTurn();
      } finally {
        looking = false;
      }
    }

    makeRequest(type) {
      this.requestState = type;
    }

    // What the engine makes of a choice: the move that it forces, else the one that `draw` takes of the usable ones.
    choice(pokemon, draw) {
      const forced = pokemon.getLockedMove() || pokemon.getSemiLockedMove();
      if (forced) {
        const moveid = this.toID(forced);
        const targetLoc = pokemon.volatiles[moveid]?.targetLoc || pokemon.lastMoveTargetLoc || 0;
        return {choice: 'move', pokemon, targetLoc, moveid};
      }
      const usable = pokemon.moveSlots.filter(slot => !slot.disabled && slot.pp > 0);
      if (!usable.length) return {choice: 'move', pokemon, moveid: 'struggle'};
      return {choice: 'move', pokemon, targetLoc: 0, moveid: usable[usable.length > 1 ? draw(usable.length) : 0].id};
    }

    // One turn.
    play(draws) {
      const choices = this.sides.map((side, number) => this.choice(side.pokemon[0], draws[number]));
      this.updateSpeed();
      this.queue.clear();
      for (const choice of choices) this.queue.addChoice(choice);
      this.requestState = '';
      this.queue.sort();
      this.turnLoop();
    }
  };
};
