import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { fixtureProject, platformAnswer, testHost, writeProject } from '../fixtures/hostProject.ts'

const host = await testHost({ env: { SUPABASE_URL: 'http://127.0.0.1:54321', PAYMENTS_URL: 'http://pay' } })

describe('a request', () => {
  test('reaches export default { fetch } as the client has sent it', async () => {
    const response = await host.ask('/echo/orders/7?q=a%20b', {
      method: 'PATCH',
      headers: {
        'x-Own': 'é',
        cookie: 'a=b; c=d',
        'accept-encoding': 'br',
        'x-forwarded-for': '9.9.9.9, 10.0.0.7',
      },
      body: 'grüße',
    })
    const seen = await response.json()
    expect(response.status).toBe(200)
    expect(seen).toMatchObject({
      prefix: 'this is kept',
      method: 'PATCH',
      url: 'http://127.0.0.1:54321/echo/orders/7?q=a%20b',
      body: 'grüße',
      remoteAddress: '10.0.0.7',
    })
    // Nothing added, nothing dropped: no header of the transport between host and isolate.
    expect(seen.headers).toEqual({
      'accept-encoding': 'br',
      'content-type': 'text/plain;charset=UTF-8',
      cookie: 'a=b; c=d',
      'x-forwarded-for': '9.9.9.9, 10.0.0.7',
      'x-own': 'é',
    })
  })

  test('that no function serves is 404, whether unknown, disabled or without a name', async () => {
    for (const path of ['/nobody', '/disabled', '/', '/_shared/x', '/..%2fecho']) {
      expect(await platformAnswer(await host.ask(path)), path).toMatchObject({
        status: 404,
        header: 'NOT_FOUND',
        code: 'NOT_FOUND',
      })
    }
  })

  test('of a method the platform does not take is 405, with those it takes', async () => {
    const response = await host.ask('/echo', { method: 'PROPFIND' })
    expect(response.headers.get('allow')).toBe('GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS')
    expect(await platformAnswer(response)).toMatchObject({ status: 405, code: 'METHOD_NOT_ALLOWED' })
  })

  test('for a WebSocket or with trailers is 501, saying that it is not carried', async () => {
    const upgrade = await host.ask('/echo', { headers: { upgrade: 'websocket', connection: 'Upgrade' } })
    expect(await platformAnswer(upgrade)).toMatchObject({
      status: 501,
      code: 'NOT_IMPLEMENTED',
      message: 'The local functions host does not carry WebSockets',
    })
    const trailers = await host.ask('/echo', { headers: { trailer: 'x-checksum' } })
    expect(await platformAnswer(trailers)).toMatchObject({
      status: 501,
      message: 'The local functions host does not carry HTTP trailers',
    })
  })
})

describe('an isolate', () => {
  test('has the given environment and nothing of its host', async () => {
    const { env, args } = await (await host.ask('/echo')).json()
    // How the machine reaches the network, if it has proxies, is all that is handed on.
    for (const name of Object.keys(env)) if (/_proxy$|^NPM_CONFIG|^DENO_TLS/i.test(name)) delete env[name]
    expect(env).toEqual({
      SUPABASE_URL: 'http://127.0.0.1:54321',
      PAYMENTS_URL: 'http://pay',
      SUPABASE_FUNCTION_SLUG: 'echo',
      SB_EXECUTION_ID: expect.stringMatching(/^[0-9a-f-]{36}$/),
      DENO_DEPLOYMENT_ID: 'local_echo_1',
    })
    expect(args).toEqual([])
  })

  test('has EdgeRuntime and no Worker, reads files, writes to /tmp only, and runs no programs', async () => {
    const { globals, permissions } = await (await host.ask('/echo')).json()
    expect(globals).toEqual({ Worker: 'undefined', EdgeRuntime: 'object' })
    expect(permissions).toEqual({
      run: 'NotCapable',
      ffi: 'NotCapable',
      writeTmp: 'allowed',
      writeElsewhere: 'NotCapable',
      read: 'allowed',
    })
  })

  test('finds the packages of its import map', async () => {
    expect(await (await host.ask('/echo')).json()).toMatchObject({ zod: 'found' })
    expect(host.texts('echo').join('\n')).not.toMatch(/Deno fetches/)
  })

  test('takes its entry point from config.toml, and its prints go to the log', async () => {
    const response = await host.ask('/elsewhere')
    expect(await response.text()).toBe('from main.ts')
    expect(host.log).toContainEqual(
      expect.objectContaining({ function: 'elsewhere', stream: 'stdout', text: 'listening on 9999' }),
    )
  })

  test('starts with the first request and serves the next ones too', async () => {
    const own = await testHost()
    expect(own.isolates()).toEqual([])
    const answers = [await own.ask('/echo'), await own.ask('/echo'), await own.ask('/echo')]
    const isolates = new Set(await Promise.all(answers.map(async (answer) => (await answer.json()).isolate)))
    expect(isolates.size).toBe(1)
    expect(own.isolates()).toMatchObject([{ function: 'echo', inFlight: 0 }])
  })
})

test('with isolates: 3 the requests go round', async () => {
  const own = await testHost({ isolates: 3 })
  const served: string[] = []
  for (let count = 0; count < 6; count += 1) served.push((await (await own.ask('/echo')).json()).isolate)
  expect(new Set(served).size).toBe(3)
  expect(served.slice(3)).toEqual(served.slice(0, 3))
  expect(own.isolates()).toHaveLength(3)
})

test('a host refuses a number of isolates that makes no sense', async () => {
  for (const isolates of [0, -1, 1.5, NaN]) {
    await expect(testHost({ isolates })).rejects.toThrow(`received ${isolates}`)
  }
})

describe('Deno.serve', () => {
  const shapes = {
    handler: `Deno.serve((request) => new Response('handler'))`,
    options: `Deno.serve({ port: 1234 }, () => new Response('options'))`,
    object: `Deno.serve({ port: 1234, handler: () => new Response('object') })`,
    fetcher: `Deno.serve({ fetch: () => new Response('fetcher') })`,
    later: `setTimeout(() => Deno.serve(() => new Response('later')), 50)`,
    onerror:
      `Deno.serve({ onError: (error) => new Response('onerror: ' + error.message) }, () => { throw new Error('x') })`,
    exported: `export default { fetch: () => new Response('exported') }`,
    made: `class App { #name = 'made'; fetch = () => new Response(this.#name) }; export default new App()`,
  }

  test('serves in each of its shapes, as does export default { fetch }', async () => {
    const files = Object.entries(shapes).map(([name, code]) => [`supabase/functions/${name}/index.ts`, code])
    const own = await testHost({ project: await writeProject(Object.fromEntries(files)) })
    const answers = await Promise.all(
      Object.keys(shapes).map(async (name) => [name, await (await own.ask(`/${name}`)).text()]),
    )
    expect(Object.fromEntries(answers)).toEqual({
      ...Object.fromEntries(Object.keys(shapes).map((name) => [name, name])),
      onerror: 'onerror: x',
    })
  })
})

describe('supabase/functions/.env', () => {
  test('gives secrets to functions, but none named SUPABASE_', async () => {
    const project = await writeProject({
      'supabase/functions/env/index.ts': 'Deno.serve(() => Response.json(Deno.env.toObject()))',
      'supabase/functions/.env':
        `# secrets\nAPI_KEY="two words"\nSUPABASE_URL=http://evil\nPAYMENTS_URL=http://mine\n`,
    })
    const own = await testHost({ project, env: { SUPABASE_URL: 'http://platform', SB_REGION: 'local' } })
    expect(await (await own.ask('/env')).json()).toMatchObject({
      API_KEY: 'two words',
      SUPABASE_URL: 'http://platform',
      PAYMENTS_URL: 'http://mine',
      SB_REGION: 'local',
    })
    expect(own.texts('')).toEqual([expect.stringContaining('SUPABASE_URL is left out')])
  })
})

describe('packages', () => {
  const modules = fileURLToPath(new URL('../../node_modules', import.meta.url))
  const code = `import { z } from 'zod'\nDeno.serve(() => new Response(typeof z))`

  test('come from node_modules when it holds the pinned versions', async () => {
    const project = await writeProject({
      'supabase/functions/uses/index.ts': code,
      'supabase/functions/uses/deno.json': JSON.stringify({ imports: { zod: 'npm:zod@4.6.7' } }),
    })
    await Deno.symlink(modules, join(project.root, 'node_modules'))
    const own = await testHost({ project })
    expect(await (await own.ask('/uses')).text()).toBe('object')
    expect(own.texts('uses').join('\n')).not.toMatch(/Deno fetches/)
  })

  test('are fetched by Deno otherwise, and the log says so', async () => {
    const project = await writeProject({
      'supabase/functions/uses/index.ts': code,
      'supabase/functions/uses/deno.jsonc':
        '{ // pinned to what is not there\n "imports": { "zod": "npm:zod@0.0.1" }, }',
    })
    await Deno.symlink(modules, join(project.root, 'node_modules'))
    const own = await testHost({ project })
    // Such a version never was: the answer shows that the registry was asked.
    expect(await platformAnswer(await own.ask('/uses'))).toMatchObject({ status: 503, code: 'BOOT_ERROR' })
    expect(own.texts('uses')).toContain('zod@0.0.1 is not in node_modules; Deno fetches the packages itself')
  })
})

test('a package that only the code names, and that node_modules has not, is fetched by Deno', async () => {
  const project = await writeProject({
    // As above: the registry is asked, in vain.
    'supabase/functions/inline/index.ts': `import 'npm:zod@0.0.1'\nDeno.serve(() => new Response())`,
    'supabase/functions/inline/deno.json': JSON.stringify({ imports: {} }),
  })
  const own = await testHost({ project })
  expect(await platformAnswer(await own.ask('/inline'))).toMatchObject({ status: 503, code: 'BOOT_ERROR' })
  expect(own.texts('inline')).toContain('a package is not in node_modules; Deno fetches the packages itself')
})

test('the fixture project is what these tests are about', () => {
  expect(host.functions().map(({ name }) => name)).toContain('echo')
  expect(fixtureProject.root).toMatch(/tests\/fixtures\/host$/)
})
