'use strict';
// Writes the game tables of one mod as JSON on stdout. Run in a folder where pokemon-showdown is installed:
// node tables.js <mod>
const path = require('node:path');
const {createRequire} = require('node:module');
const {Dex} = createRequire(path.join(process.cwd(), 'package.json'))('pokemon-showdown');

const dex = Dex.mod(process.argv[2]);
const STATS = {hp: 'hp', atk: 'attack', def: 'defense', spa: 'special_attack', spd: 'special_defense', spe: 'speed'};
const FORMS = {'': 'base', Alola: 'alola', Mega: 'mega', 'Mega-X': 'mega', 'Mega-Y': 'mega', Starter: 'starter'};
const CHANCES = {
  flinch: 'flinch_chance', brn: 'burn_chance', par: 'paralysis_chance', frz: 'freeze_chance',
  psn: 'poison_chance', tox: 'poison_chance', slp: 'sleep_chance', confusion: 'confusion_chance',
};

// The first member of an evolution line; a Mega, Alolan or partner form belongs to its base species' line.
function evolutionLine(species) {
  let member = dex.species.get(species.baseSpecies);
  while (member.prevo) member = dex.species.get(member.prevo);
  return member.id;
}

function speciesRow(species) {
  const row = {
    species_id: species.id, name: species.name, num: species.num,
    type_1: species.types[0].toLowerCase(), type_2: (species.types[1] || '').toLowerCase(),
  };
  for (const [key, column] of Object.entries(STATS)) row[column] = species.baseStats[key];
  row.weight = species.weightkg;
  row.form = FORMS[species.forme];
  row.base_species = dex.species.get(species.baseSpecies).id;
  row.evolution_line = evolutionLine(species);
  return row;
}

const boostText = boosts => Object.entries(boosts || {})
  .map(([key, stages]) => `${STATS[key] || key}${stages > 0 ? '+' : ''}${stages}`).join(' ');

function secondaryColumns(move) {
  const columns = Object.fromEntries(Object.values(CHANCES).map(column => [column, 0]));
  let boosts = '', boostChance = 0;
  for (const effect of move.secondaries || []) {
    const column = CHANCES[effect.status || effect.volatileStatus];
    if (column) columns[column] = effect.chance;
    if (effect.boosts) [boosts, boostChance] = [boostText(effect.boosts), effect.chance];
  }
  // Tri Attack draws one of three with code of its own: a third of 20 % each.
  if (move.id === 'triattack') columns.burn_chance = columns.paralysis_chance = columns.freeze_chance = 6.667;
  return {...columns, target_boosts: boosts, target_boost_chance: boostChance};
}

// How damage comes about where the damage formula does not tell it: ohko, level, a number of HP, or the
// move's own id where the engine has code for this move alone (psywave, superfang, lowkick, ...).
function damageRule(move) {
  if (move.category === 'Status') return '';
  if (move.ohko) return 'ohko';
  if (move.damage) return String(move.damage);
  return move.basePower ? '' : move.id;
}

function moveRow(move) {
  const hits = [move.multihit || 1].flat();
  const ratio = fraction => fraction ? fraction[0] / fraction[1] : 0;
  const self = (move.self && (move.self.volatileStatus || move.self.sideCondition)) || '';
  return {
    move_id: move.id, name: move.name, type: move.type.toLowerCase(), category: move.category.toLowerCase(),
    base_power: move.basePower, accuracy: move.accuracy === true ? 100 : move.accuracy,
    always_hits: move.accuracy === true, pp: move.pp, priority: move.priority,
    multihit_min: hits[0], multihit_max: hits[hits.length - 1], crit_ratio: move.critRatio,
    always_crits: !!move.willCrit, drain: ratio(move.drain), recoil: ratio(move.recoil),
    crash: !!move.hasCrashDamage, damage_rule: damageRule(move), ohko: !!move.ohko,
    charge: 'charge' in move.flags, evades_while_charging: 'charge' in move.flags && !!move.condition,
    recharge: 'recharge' in move.flags, locks_in: self === 'lockedmove', self_destruct: !!move.selfdestruct,
    needs_sleeping_target: move.id === 'dreameater', needs_attacking_target: move.id === 'suckerpunch',
    first_turn_only: move.id === 'fakeout', uses_target_attack: move.overrideOffensivePokemon === 'target',
    traps: move.volatileStatus === 'partiallytrapped', seeds: ['leechseed', 'sappyseed'].includes(move.id),
    screen: ['reflect', 'lightscreen'].includes(self) ? self : '',
    // Skull Bash raises its user's defence while it charges, with code of its own.
    self_boosts: move.id === 'skullbash' ? 'defense+1' : boostText(move.self?.boosts),
    ...secondaryColumns(move),
  };
}

const EFFECTIVENESS = [1, 2, 0.5, 0];  // the engine's codes: 0 normal, 1 weak, 2 resists, 3 immune
const types = dex.types.all().filter(type => !type.isNonstandard).sort((a, b) => a.id < b.id ? -1 : 1);
const chartRow = attacking => ({
  type: attacking.id,
  ...Object.fromEntries(types.map(type => [type.id, EFFECTIVENESS[type.damageTaken[attacking.name]]])),
});

const species = dex.species.all().filter(entry => entry.num > 0 && entry.tier !== 'Illegal' && !entry.isNonstandard)
  .sort((a, b) => a.id < b.id ? -1 : 1);
const learnsets = species.flatMap(entry => [...dex.species.getMovePool(entry.id)].sort()
  .map(move => ({species_id: entry.id, move_id: move})));
const moves = [...new Set(learnsets.map(row => row.move_id))].sort().map(id => dex.moves.get(id));
process.stdout.write(JSON.stringify({
  species: species.map(speciesRow), moves: moves.map(moveRow), learnsets, type_chart: types.map(chartRow),
}));
