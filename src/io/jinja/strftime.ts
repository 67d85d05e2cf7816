// Python's strftime in the C locale: English names, whatever the machine speaks.

const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const months = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)([a-zA-Z%])/g, (whole, dash: string, letter: string) => {
    const text = fields[letter]?.(date);
    if (text === undefined) return whole;
    return dash === '-' ? text.replace(/^0+(?=\d)/, '') : text;
  });
}

const two = (n: number): string => String(n).padStart(2, '0');
const hour12 = (date: Date): number => date.getHours() % 12 || 12;
const dayOfYear = (date: Date): number => {
  const year = date.getFullYear();
  return (Date.UTC(year, date.getMonth(), date.getDate()) - Date.UTC(year, 0, 1)) / 86_400_000;
};
/** Weeks that begin on this day of the week; the days before the first are week 0. */
const week = (date: Date, first: number): number =>
  Math.floor((dayOfYear(date) + 7 - ((date.getDay() - first + 7) % 7)) / 7);

const fields: Readonly<Record<string, (date: Date) => string>> = {
  a: date => days[date.getDay()]!.slice(0, 3),
  A: date => days[date.getDay()]!,
  w: date => String(date.getDay()),
  u: date => String(date.getDay() || 7),
  d: date => two(date.getDate()),
  e: date => String(date.getDate()).padStart(2, ' '),
  b: date => months[date.getMonth()]!.slice(0, 3),
  h: date => months[date.getMonth()]!.slice(0, 3),
  B: date => months[date.getMonth()]!,
  m: date => two(date.getMonth() + 1),
  y: date => two(date.getFullYear() % 100),
  Y: date => String(date.getFullYear()),
  C: date => two(Math.floor(date.getFullYear() / 100)),
  H: date => two(date.getHours()),
  I: date => two(hour12(date)),
  l: date => String(hour12(date)).padStart(2, ' '),
  p: date => (date.getHours() < 12 ? 'AM' : 'PM'),
  M: date => two(date.getMinutes()),
  S: date => two(date.getSeconds()),
  f: date => `${String(date.getMilliseconds()).padStart(3, '0')}000`,
  j: date => String(dayOfYear(date) + 1).padStart(3, '0'),
  U: date => two(week(date, 0)),
  W: date => two(week(date, 1)),
  F: date => strftime(date, '%Y-%m-%d'),
  T: date => strftime(date, '%H:%M:%S'),
  R: date => strftime(date, '%H:%M'),
  D: date => strftime(date, '%m/%d/%y'),
  x: date => strftime(date, '%m/%d/%y'),
  X: date => strftime(date, '%H:%M:%S'),
  c: date => strftime(date, '%a %b %e %H:%M:%S %Y'),
  // datetime.now() knows no time zone.
  z: () => '',
  Z: () => '',
  n: () => '\n',
  t: () => '\t',
  '%': () => '%',
};
