import { expect, test } from 'vitest'
import { parseLcov, percent, total } from '../../support/lcov.ts'

const report = [
  'SF:/root/local/a.ts',
  'BRDA:2,0,0,1',
  'BRDA:2,0,1,0',
  'BRDA:9,1,0,-',
  'DA:1,3',
  'DA:2,0',
  'DA:3,0',
  'DA:5,0',
  'DA:6,1',
  'DA:9,0',
  'end_of_record',
  'SF:/root/local/b.ts',
  'DA:1,1',
  'end_of_record',
].join('\n')

test('parseLcov() counts lines and branches by file and lists what never ran', () => {
  expect(parseLcov(report)).toEqual([
    {
      path: '/root/local/a.ts',
      lines: { found: 6, hit: 2 },
      branches: { found: 3, hit: 1 },
      missing: ['2-5', '9'],
    },
    { path: '/root/local/b.ts', lines: { found: 1, hit: 1 }, branches: { found: 0, hit: 0 }, missing: [] },
  ])
})

test('total() adds files up', () => {
  expect(total(parseLcov(report))).toMatchObject({
    lines: { found: 7, hit: 3 },
    branches: { found: 3, hit: 1 },
  })
})

test('percent() never says 100 where something is missing', () => {
  expect(percent({ found: 10_000, hit: 9_999 })).toBe('99.9 %')
  expect(percent({ found: 3, hit: 3 })).toBe('100.0 %')
  expect(percent({ found: 0, hit: 0 })).toBe('-')
})
