/** What keeps the stack from starting: said as what, where, and what to do, with an exit code and nothing left running. */
import { beforeAll, expect, test } from 'vitest'
import { Checkout } from './support/checkout.ts'

let checkout: Checkout

beforeAll(async () => {
  checkout = await Checkout.open()
}, 30_000)

test('a taken port: start names the port, whoever holds it, and another one', async () => {
  const listener = Deno.listen({ hostname: '127.0.0.1', port: checkout.port })
  try {
    const { code, stderr } = await checkout.start()
    expect(code).toBe(1)
    expect(stderr).toMatch(
      new RegExp(`port ${checkout.port} for the API: it is taken by .*\\(pid ${Deno.pid}\\)`),
    )
    expect(stderr).toMatch(/where: 127\.0\.0\.1:\d+/)
    expect(stderr).toMatch(/fix: {3}.*npm start -- --port \d+/)
    expect(stderr).not.toMatch(/ {4}at /)
  } finally {
    listener.close()
  }
  await checkout.noProcesses()
})

test('a taken database port is told as such', async () => {
  const listener = Deno.listen({ hostname: '127.0.0.1', port: checkout.port + 1 })
  try {
    const { code, stderr } = await checkout.start()
    expect(code).toBe(1)
    expect(stderr).toContain(`port ${checkout.port + 1} for the database`)
  } finally {
    listener.close()
  }
  await checkout.noProcesses()
}, 30_000)

test('a syntax error in a function: start names the function, the file and the line', async () => {
  const file = checkout.path('supabase', 'functions', 'orders', 'index.ts')
  const good = await Deno.readTextFile(file)
  await Deno.writeTextFile(file, `const = 1\n${good}`)
  try {
    const { code, stderr } = await checkout.start()
    expect(code).toBe(1)
    expect(stderr).toMatch(/Cannot serve "orders": SyntaxError/)
    expect(stderr).toMatch(/where: supabase\/functions\/orders\/index\.ts:1:\d+/)
    expect(stderr).toMatch(/fix: {3}Correct the line/)
  } finally {
    await Deno.writeTextFile(file, good)
  }
  await checkout.noProcesses()
}, 30_000)

test('an import that is nowhere: start names it and the line', async () => {
  const file = checkout.path('supabase', 'functions', 'health', 'index.ts')
  const good = await Deno.readTextFile(file)
  await Deno.writeTextFile(file, `import 'nowhere-to-be-found'\nimport './absent.ts'\n${good}`)
  try {
    const { code, stderr } = await checkout.start()
    expect(code).toBe(1)
    expect(stderr).toMatch(/Cannot resolve the import "nowhere-to-be-found"/)
    expect(stderr).toMatch(/supabase\/functions\/health\/index\.ts:1:\d+/)
    expect(stderr).toMatch(/supabase\/functions\/health\/absent\.ts does not exist/)
    expect(stderr).toMatch(/supabase\/functions\/health\/index\.ts:2:\d+/)
  } finally {
    await Deno.writeTextFile(file, good)
  }
  await checkout.noProcesses()
}, 30_000)

test('a broken migration: start names the file, the line and what PostgreSQL said', async () => {
  const file = checkout.path('supabase', 'migrations', '29990101000000_broken.sql')
  await Deno.writeTextFile(file, 'select 1;\n\nselect nothing from nowhere;\n')
  try {
    const { code, stderr } = await checkout.start()
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /Cannot apply migration 29990101000000_broken\.sql: relation "nowhere" does not exist/,
    )
    expect(stderr).toMatch(/where: .*29990101000000_broken\.sql:3/)
    expect(stderr).toMatch(/fix: {3}/)
  } finally {
    await Deno.remove(file)
  }
  await checkout.noProcesses()
}, 30_000)

test('a DATABASE_URL that nobody answers: start says so without its password', async () => {
  const env = { DATABASE_URL: 'postgresql://postgres:geheim@127.0.0.1:1/postgres' }
  const { code, stderr } = await checkout.start([], env)
  expect(code).toBe(1)
  expect(stderr).toMatch(/Cannot connect to the database of DATABASE_URL/)
  expect(stderr).toMatch(/fix: {3}Correct DATABASE_URL, or unset it/)
  expect(stderr).not.toContain('geheim')
})

test('reset refuses the database of DATABASE_URL', async () => {
  const env = { DATABASE_URL: 'postgresql://postgres:postgres@127.0.0.1:1/postgres' }
  expect(await checkout.run(['reset'], env)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('Cannot reset the database of DATABASE_URL'),
  })
})

test.each([
  [['start', '--prot', '1'], /Unknown option '--prot'[\s\S]*Usage: npm start/],
  [['start', '--port', 'abc'], /Cannot use --port abc[\s\S]*whole number/],
  [['start', '--isolates', '0'], /Cannot use --isolates 0[\s\S]*from 1 to/],
  [['status', 'extra'], /Unexpected argument "extra"/],
  [['fly'], /no command "fly"[\s\S]*start, stop, status/],
])('arguments that make no sense are refused with the usage: %j', async (args, message) => {
  const { code, stderr } = await checkout.run(args)
  expect(code).toBe(1)
  expect(stderr).toMatch(message)
})

test('--debug shows where an error came from', async () => {
  const { stderr } = await checkout.run(['start', '--port', 'abc', '--debug'])
  expect(stderr).toMatch(/ {4}at .*options\.ts/)
})

test.each([
  ['[functions.orders]\nverify_jwt = "no"\n', /verify_jwt|boolean/],
  ['[functions.orders\n', /Invalid TOML/],
])('a config.toml that is wrong is told in words: %j', async (config, message) => {
  const file = checkout.path('supabase', 'config.toml')
  const good = await Deno.readTextFile(file)
  await Deno.writeTextFile(file, config)
  try {
    const { code, stderr } = await checkout.start()
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
    expect(stderr).toMatch(/where: .*config\.toml/)
    expect(stderr).not.toMatch(/"code":|^\s*\[\s*$/m)
  } finally {
    await Deno.writeTextFile(file, good)
  }
  await checkout.noProcesses()
}, 30_000)

test('npm run doctor names what would fail when deployed, with its fix, and exits 1', async () => {
  const file = checkout.path('supabase', 'config.toml')
  const good = await Deno.readTextFile(file)
  const secrets = checkout.path('supabase', 'functions', '.env')
  await Deno.writeTextFile(
    file,
    good.replace(/(\[functions\.orders\]\n)verify_jwt = false\nimport_map = .*\n/, '$1'),
  )
  await Deno.writeTextFile(
    secrets,
    [
      'SUPABASE_URL=http://example.com',
      'HOLDFAST_DB_URL=postgresql://u:p@aws-0-eu-central-1.pooler.supabase.com:5432/postgres',
      '',
    ].join('\n'),
  )
  try {
    const { code, stdout } = await checkout.run(['doctor', '--json'], {
      DATABASE_URL: 'postgresql://u:p@127.0.0.1:6543/postgres',
    })
    expect(code).toBe(1)
    const { findings } = JSON.parse(stdout)
    const problems = findings.filter((finding: { state: string }) => finding.state === 'problem')
    for (const name of ['verify_jwt', 'Import map', 'Secrets', 'HOLDFAST_DB_URL', 'DATABASE_URL']) {
      expect(problems).toContainEqual(expect.objectContaining({ name, fix: expect.any(String) }))
    }
  } finally {
    await Deno.writeTextFile(file, good)
    await Deno.remove(secrets)
  }
}, 30_000)
