'use strict';
// Fights battles: reads one JSON request a line from stdin, answers one JSON line on stdout, ends with its input.
// Run in a folder where pokemon-showdown is installed: node worker.js <mod>
//
// Request: {"matchups": [[species_a, move_a, species_b, move_b], ...], "n_battles": n, "stream": text, "log": bool}
// Answer:  {"wins_a": [...], "turns": [...]}, sums over the n battles of each matchup;
//          with "log" also {"logs": [[battle log, ...], ...]}; {"error": text} when a request cannot be fought.
const path = require('node:path');
const readline = require('node:readline');
const {createHash} = require('node:crypto');
const {createRequire} = require('node:module');
const {Battle, Dex} = createRequire(path.join(process.cwd(), 'package.json'))('pokemon-showdown');

const mod = process.argv[2];
const dex = Dex.mod(mod);
// Of the mod's formats the one without a team preview. Teams are given, so that nothing is drawn for them.
const format = dex.formats.get(`${mod}randombattle`);
const STATS = ['hp', 'atk', 'def', 'spa', 'spd', 'spe'];
const every = value => Object.fromEntries(STATS.map(stat => [stat, value]));

function team(speciesId, moveId) {
  const species = dex.species.get(speciesId), move = dex.moves.get(moveId);
  if (!species.exists || species.id !== speciesId) throw new Error(`unknown species: ${speciesId}`);
  if (!move.exists || move.id !== moveId) throw new Error(`unknown move: ${moveId}`);
  return [{
    name: species.name, species: species.name, item: '', ability: 'No Ability', moves: [moveId],
    nature: 'Serious', gender: '', level: 50, evs: every(0), ivs: every(31),
  }];
}

// The engine's generator takes four 16-bit numbers: the first 64 bits of the hash of what names the battle.
function seed(stream, matchup, repetition) {
  const hash = createHash('sha256').update([stream, ...matchup, repetition].join('/')).digest();
  return [0, 2, 4, 6].map(offset => hash.readUInt16BE(offset));
}

function fight(matchup, seedOfBattle, keepLog) {
  const [speciesA, moveA, speciesB, moveB] = matchup;
  const battle = new Battle({format, formatid: format.id, seed: seedOfBattle});
  if (!keepLog) battle.add = () => {};  // the log is only output
  battle.setPlayer('p1', {name: 'A', team: team(speciesA, moveA)});
  battle.setPlayer('p2', {name: 'B', team: team(speciesB, moveB)});
  while (!battle.ended) battle.makeChoices('default', 'default');
  if (battle.winner !== 'A' && battle.winner !== 'B') throw new Error(`no winner: ${matchup.join(' ')}`);
  return battle;
}

function answer(request) {
  const wins = [], turns = [], logs = [];
  for (const matchup of request.matchups) {
    let won = 0, lasted = 0;
    const kept = [];
    for (let repetition = 0; repetition < request.n_battles; repetition++) {
      const battle = fight(matchup, seed(request.stream, matchup, repetition), request.log);
      won += battle.winner === 'A';
      lasted += battle.turn;
      if (request.log) kept.push(battle.log);
      battle.destroy();
    }
    wins.push(won);
    turns.push(lasted);
    if (request.log) logs.push(kept);
  }
  return {wins_a: wins, turns, ...(request.log ? {logs} : {})};
}

// An ended input means that whoever asked is gone: the loop ends, and the process with it.
readline.createInterface({input: process.stdin}).on('line', line => {
  let reply;
  try {
    reply = answer(JSON.parse(line));
  } catch (error) {
    reply = {error: error.message};
  }
  process.stdout.write(JSON.stringify(reply) + '\n');
});
