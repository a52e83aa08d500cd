'use strict';
// Fights battles: reads one JSON request a line from stdin, answers one JSON line on stdout, ends with its input.
// Run in a folder where pokemon-showdown is installed: node worker.js <mod>
//
// Request: {"matchups": [[species_a, move_a, species_b, move_b], ...], "n_battles": n, "stream": text}, where a move
//          is an id or "random"; then {"pools": {species: [move, ...]}} holds what that species draws from. And
//          "plain": true to fight in the engine as it is, "ends": true and "log": true to be told more.
// Answer:  {"wins_a": [...], "turns": [...]}, sums over the n battles of each matchup;
//          with "ends" also {"ends": [[[winner, turns, HP of A, HP of B, state of the generator], ...], ...]};
//          with "log", which is plain, {"logs": [[battle log, ...], ...]};
//          {"error": text} when a request cannot be fought.
const path = require('node:path');
const readline = require('node:readline');
const {createHash} = require('node:crypto');
const {createRequire} = require('node:module');
const engine = createRequire(path.join(process.cwd(), 'package.json'))('pokemon-showdown');
const {Battle, Dex, PRNG} = engine;

const mod = process.argv[2];
const dex = Dex.mod(mod);
// Of the mod's formats the one without a team preview. Teams are given, so that nothing is drawn for them.
const format = dex.formats.get(`${mod}randombattle`);
const QuickBattle = require('./quick.js')(engine, dex, format);
const RANDOM = 'random';
const STATS = ['hp', 'atk', 'def', 'spa', 'spd', 'spe'];
const every = value => Object.fromEntries(STATS.map(stat => [stat, value]));

function team(speciesId, moveIds) {
  const species = dex.species.get(speciesId);
  if (!species.exists || species.isNonstandard || species.id !== speciesId) throw new Error(`unknown species: ${speciesId}`);
  for (const id of moveIds) {
    const move = dex.moves.get(id);
    if (!move.exists || move.id !== id) throw new Error(`unknown move: ${id}`);
  }
  return [{
    name: species.name, species: species.name, item: '', ability: 'No Ability', moves: moveIds,
    nature: 'Serious', gender: '', level: 50, evs: every(0), ivs: every(31),
  }];
}

function pool(speciesId, move, pools) {
  if (move !== RANDOM) return [move];
  if (!pools?.[speciesId]?.length) throw new Error(`no moves to draw from: ${speciesId}`);
  return pools[speciesId];
}

// A generator takes four 16-bit numbers. Of the hash of what names a battle the first 64 bits are the engine's
// generator's, the next side A's and the next side B's, for the moves that they draw.
function seeds(stream, matchup, repetition) {
  const hash = createHash('sha256').update([stream, ...matchup, repetition].join('/')).digest();
  const numbers = Array.from({length: 12}, (_, number) => hash.readUInt16BE(2 * number));
  return [numbers.slice(0, 4), numbers.slice(4, 8), numbers.slice(8)];
}

const drawing = seed => {
  let generator = null;  // most sides have one move
  return count => (generator ??= new PRNG(seed)).random(count);
};

function fightQuick(teams, seed, draws) {
  const battle = new QuickBattle(seed, teams);
  while (!battle.ended) battle.play(draws);
  return battle;
}

// The engine's own way: players, requests, choices as text.
function fightPlain(teams, seed, draws) {
  const battle = new Battle({format, formatid: format.id, seed});
  ['p1', 'p2'].forEach((slot, number) => battle.setPlayer(slot, {name: 'AB'[number], team: teams[number]}));
  while (!battle.ended) battle.makeChoices(...battle.sides.map((side, number) => choose(side, draws[number])));
  return battle;
}

function choose(side, draw) {
  const usable = side.activeRequest.active[0].moves.filter(move => !move.disabled);
  return usable.length > 1 ? `move ${usable[draw(usable.length)].id}` : 'default';
}

function answer(request) {
  const fight = request.plain || request.log ? fightPlain : fightQuick;
  const reply = {wins_a: [], turns: [], ...(request.ends && {ends: []}), ...(request.log && {logs: []})};
  for (const matchup of request.matchups) {
    const [speciesA, moveA, speciesB, moveB] = matchup;
    const teams = [team(speciesA, pool(speciesA, moveA, request.pools)),
      team(speciesB, pool(speciesB, moveB, request.pools))];
    let won = 0, lasted = 0;
    const ends = [], logs = [];
    for (let repetition = 0; repetition < request.n_battles; repetition++) {
      const [seed, ...own] = seeds(request.stream, matchup, repetition);
      const battle = fight(teams, seed, own.map(drawing));
      if (battle.winner !== 'A' && battle.winner !== 'B') throw new Error(`no winner: ${matchup.join(' ')}`);
      won += battle.winner === 'A';
      lasted += battle.turn;
      if (request.ends) {
        ends.push([battle.winner, battle.turn, ...battle.sides.map(side => side.pokemon[0].hp), battle.prng.getSeed()]);
      }
      if (request.log) logs.push(battle.log);
      battle.destroy();
    }
    reply.wins_a.push(won);
    reply.turns.push(lasted);
    reply.ends?.push(ends);
    reply.logs?.push(logs);
  }
  return reply;
}

// An ended input or output means that whoever asked is gone: the loop ends, and the process with it.
process.stdout.on('error', () => process.exit(1));
readline.createInterface({input: process.stdin}).on('line', line => {
  let reply;
  try {
    reply = answer(JSON.parse(line));
  } catch (error) {
    reply = {error: error.message};
  }
  process.stdout.write(JSON.stringify(reply) + '\n');
});
