import { expect, test } from 'vitest'
import { LocalError } from '../../../local/errors.ts'
import { readTask } from '../../../tools/rls/explainArguments.ts'

const ada = ['--as', 'ada@example.com']

test('readTask() takes a table, a command and a caller', () => {
  expect(readTask(['--explain', 'public.orders', 'update', ...ada])).toEqual({
    kind: 'explain',
    json: false,
    databaseUrl: undefined,
    request: { table: 'public.orders', commands: ['update'], as: 'ada@example.com' },
  })
})

test.each([[[]], [['all']], [['ALL']]])(
  'readTask() asks about all four commands when given %j',
  (command) => {
    const task = readTask(['--explain', 'orders', ...command, ...ada])
    expect(task).toMatchObject({ request: { commands: ['select', 'insert', 'update', 'delete'] } })
  },
)

test('readTask() takes a row, values, claims, a database and JSON', () => {
  const args = [
    '--row',
    '7',
    '--values',
    '{"n":1}',
    '--claims',
    '{"aal":"aal2"}',
    '--db-url',
    'postgres://x',
    '--json',
  ]
  expect(readTask(['--explain', 'orders', 'Update', ...ada, ...args])).toMatchObject({
    json: true,
    databaseUrl: 'postgres://x',
    request: { commands: ['update'], row: '7', values: { n: 1 }, claims: { aal: 'aal2' } },
  })
})

test.each([
  [[], 'usage'],
  [['--help'], 'usage'],
  [['--explain', 'orders', '--help'], 'usage'],
  [['--write'], 'write'],
  [['--check'], 'check'],
  [['--check', '--debug'], 'check'],
])('readTask() of %j is %s', (args, kind) => {
  expect(readTask(args)).toEqual({ kind })
})

test.each([
  [['--explain', 'orders'], /nobody is named/, /--as ada@example\.com/],
  [['--explain', 'orders', '--as', ''], /nobody is named/, /--as/],
  [['--explain', '', ...ada], /names no table/, /public\.orders/],
  [
    ['--explain', 'orders', 'truncate', ...ada],
    /no command "truncate"/,
    /select, insert, update, delete, all/,
  ],
  [['--explain', 'orders', 'toString', ...ada], /no command "toString"/, /select/],
  [['--explain', 'orders', 'update', 'now', ...ada], /Unexpected argument "now"/, /Usage: npm run rls/],
  [['--explain', 'orders', '--who', 'ada'], /--who/, /Usage: npm run rls/],
  [['--explain'], /--explain/, /Usage/],
  [['update', ...ada], /update is part of no question/, /--explain public\.orders/],
  [ada, /as is part of no question/, /--explain/],
  [['--write', '--json'], /json is part of no question/, /--explain/],
  [['--write', '--check'], /--write and --check are two questions/, /one at a time/],
  [['--explain', 'orders', ...ada, '--write'], /--explain and --write/, /one at a time/],
  [['--explain=orders', ...ada, '--check'], /--explain and --check/, /one at a time/],
  [['--explain', 'orders', ...ada, '--values', 'n=1'], /--values is no JSON object/, /Quote it/],
  [['--explain', 'orders', ...ada, '--values', '[1]'], /--values is no JSON object/, /Quote it/],
  [['--explain', 'orders', ...ada, '--claims', 'null'], /--claims is no JSON object/, /--claims/],
])('readTask() refuses %j, and says how it is meant', (args, message, fix) => {
  const read = () => readTask(args)
  expect(read).toThrow(LocalError)
  expect(read).toThrow(message)
  expect(read).toThrow(expect.objectContaining({ fix: expect.stringMatching(fix) }))
})
