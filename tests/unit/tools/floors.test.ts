import { expect, test } from 'vitest'
import { floors } from '../../../tools/checks/floors.ts'
import { importsOf } from '../../../tools/imports.ts'
import { scratchProject } from './scratchProject.ts'

const shared = 'supabase/functions/_shared'

test('a file may import from its own folder and from lower floors', async () => {
  const project = await scratchProject({
    [`${shared}/core/errors.ts`]: `export const a = 1\n`,
    [`${shared}/db/client.ts`]: `import { a } from '../core/errors.ts'\nimport { b } from './pool.ts'\n`,
    [`${shared}/db/pool.ts`]: `import postgres from 'postgres'\n`,
    [`${shared}/http/api.ts`]: `export { a } from '../core/errors.ts'\n`,
    [`${shared}/adapters/hono.ts`]: `import { b } from '../http/api.ts'\n`,
  })
  expect(await floors.find(project)).toEqual([])
})

test.each([
  ['a higher floor', `import { api } from '../http/api.ts'`, 'http (floor 5) is not below db (floor 2)'],
  ['a higher floor, for a type', `import type { Api } from '../http/api.ts'`, 'http (floor 5)'],
  ['a higher floor, when needed', `const load = () => import('../http/api.ts')`, 'http (floor 5)'],
  ['a higher floor, to hand it on', `export * from '../http/api.ts'`, 'http (floor 5)'],
  ['the adapters', `import '../adapters/hono.ts'`, 'adapters (floor 6) is not below db (floor 2)'],
  ['a function', `import api from '../../orders/index.ts'`, 'outside of _shared'],
])('a file may not import from %s', async (_case, line, message) => {
  const project = await scratchProject({ [`${shared}/db/client.ts`]: `// first line\n${line}\n` })
  expect(await floors.find(project)).toEqual([
    { where: `${shared}/db/client.ts:2`, message: expect.stringContaining(message), fix: expect.any(String) },
  ])
})

test('two folders of one floor may not import from each other', async () => {
  const project = await scratchProject({ [`${shared}/jobs/worker.ts`]: `import '../security/keys.ts'\n` })
  expect(await floors.find(project)).toHaveLength(1)
})

test('a file that is on no floor is named', async () => {
  const project = await scratchProject({ [`${shared}/helpers.ts`]: '', [`${shared}/misc/x.ts`]: '' })
  expect((await floors.find(project)).map(({ where }) => where))
    .toEqual([`${shared}/helpers.ts`, `${shared}/misc/x.ts`])
})

test('importsOf() sees imports over several lines and none in comments', () => {
  const text = [
    '/** Use it as',
    " * import { x } from 'commented'",
    ' */',
    'import {',
    '  a,',
    '  type B,',
    "} from './several.ts'",
    "// import { y } from './gone.ts'",
    "import './effect.ts'",
  ].join('\n')
  expect(importsOf(text)).toEqual([{ specifier: './several.ts', line: 7 }, {
    specifier: './effect.ts',
    line: 9,
  }])
})
